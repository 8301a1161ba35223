DROP TABLE forgotten, privacy_requests;
