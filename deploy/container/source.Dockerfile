# PostgreSQL with wal2json, for compose.yaml.
FROM postgres:17-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends "postgresql-$PG_MAJOR-wal2json" \
    && rm -rf /var/lib/apt/lists/*
