DROP TABLE proposals;
DROP TABLE proposal_runs;
