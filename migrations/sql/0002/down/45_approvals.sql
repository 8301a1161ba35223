DROP TABLE approval_votes;
DROP TABLE approvals;
DROP FUNCTION refuse_own_vote;
DROP FUNCTION refuse_grant_by_too_few;
