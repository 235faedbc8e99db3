-- Statements that the throw-away cluster runs for itself.

-- name: create_database
create database {}
