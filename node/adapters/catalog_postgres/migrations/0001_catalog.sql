-- The catalog's first shape.
--
-- Study, series and patient rows are written once, by whoever comes first, and never updated by an
-- instance: no counters, no "last changed", so that no two writers of a study queue on a row. Counts are
-- counted when asked for. For the same reason instances carry no foreign key to their series: its check
-- would lock the parent row in every insert. Instead every admission holds a shared advisory lock on its
-- study, and a removal holds it exclusively (see instances.py); `stele check` looks for orphans.
--
-- UIDs and codes are compared byte by byte (COLLATE "C"), whatever the server's language: that is what
-- DICOM means by equal and by order, and it lets a plain index serve prefixes.
--
-- `attributes` columns hold the level's kept attributes in the DICOM JSON model (PS3.18 annex F); the
-- plain columns beside them exist only to be matched and sorted by.

CREATE TABLE patients (
    patient_pk bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Patient ID and its issuer, or the Study Instance UID where a dataset has no Patient ID
    patient_key text COLLATE "C" NOT NULL UNIQUE,
    patient_id text COLLATE "C" NOT NULL,
    issuer text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,            -- normalised for matching (node.domain.names.search_text)
    name_sounds text[] NOT NULL,   -- phonetic codes (node.domain.names.phonetic)
    birth_date text COLLATE "C" NOT NULL,      -- YYYYMMDD
    sex text COLLATE "C" NOT NULL,
    attributes jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE studies (
    study_pk bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_uid text COLLATE "C" NOT NULL UNIQUE,
    patient_pk bigint NOT NULL REFERENCES patients,
    study_date text COLLATE "C" NOT NULL,      -- YYYYMMDD
    study_time text COLLATE "C" NOT NULL,      -- HHMMSS.FFFFFF, without trailing zeros
    accession_number text COLLATE "C" NOT NULL,
    study_id text COLLATE "C" NOT NULL,
    description text COLLATE "C" NOT NULL,     -- normalised
    referring_physician text COLLATE "C" NOT NULL, -- normalised
    attributes jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE series (
    series_pk bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_uid text COLLATE "C" NOT NULL UNIQUE,
    study_pk bigint NOT NULL REFERENCES studies,
    modality text COLLATE "C" NOT NULL,
    series_number bigint,
    attributes jsonb NOT NULL,
    -- Whether series_metadata is current. The one column that changes: the first instance after a
    -- preparation clears it, all that follow find it cleared and touch nothing.
    prepared boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE instances (
    instance_pk bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sop_instance_uid text COLLATE "C" NOT NULL UNIQUE,
    series_pk bigint NOT NULL,
    study_pk bigint NOT NULL,
    sop_class_uid text COLLATE "C" NOT NULL,
    transfer_syntax_uid text COLLATE "C" NOT NULL,
    instance_number bigint,
    number_of_frames integer NOT NULL,
    attributes jsonb NOT NULL,
    header bytea NOT NULL,         -- packed header (node.domain.header), already compressed
    object_name text COLLATE "C" NOT NULL UNIQUE,
    prefix_length integer NOT NULL,
    dataset_length bigint NOT NULL,
    digest bytea NOT NULL,
    source text NOT NULL,          -- calling AE title or account
    received_at timestamptz NOT NULL DEFAULT now(),
    received_again_at timestamptz  -- a retry writes WAL, so that its commit waits for the standby too
);
ALTER TABLE instances ALTER COLUMN header SET STORAGE EXTERNAL;
CREATE INDEX instances_series ON instances (series_pk, instance_pk);
CREATE INDEX instances_study ON instances (study_pk, instance_pk);
CREATE INDEX series_study ON series (study_pk);
CREATE INDEX series_unprepared ON series (series_pk) WHERE NOT prepared;
CREATE INDEX studies_patient ON studies (patient_pk);

CREATE TABLE series_metadata (
    series_uid text COLLATE "C" PRIMARY KEY,
    version text NOT NULL,
    metadata bytea NOT NULL,       -- gzip of the JSON array that WADO-RS returns
    prepared_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE series_metadata ALTER COLUMN metadata SET STORAGE EXTERNAL;

CREATE TABLE surplus (
    object_name text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);

-- Every row carries its transaction, so that the sealing worker can tell which transactions have ended
-- (all below pg_snapshot_xmin) without touching a row: rows are appended, never updated.
CREATE TABLE audit_events (
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    event_id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL,
    outcome text NOT NULL,
    actor text NOT NULL,
    address text NOT NULL,
    protocol text NOT NULL,
    study_uids text[] NOT NULL,
    detail jsonb NOT NULL,
    PRIMARY KEY (txid, event_id)
);

CREATE TABLE audit_seals (
    seal_id bigint PRIMARY KEY,    -- 1, 2, 3 … without a gap
    below_txid xid8 NOT NULL,      -- seals the events from the former seal's bound up to below this one
    events bigint NOT NULL,
    hash bytea NOT NULL,           -- SHA-256 over the former seal's hash and the events
    sealed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE accounts (
    name text PRIMARY KEY,
    role text NOT NULL,
    password_hash text             -- argon2id; none for machines
);

CREATE TABLE sessions (
    token_sha256 bytea PRIMARY KEY,
    name text NOT NULL REFERENCES accounts ON DELETE CASCADE,
    expires_at timestamptz         -- none: a machine's token, until revoked
);
CREATE INDEX sessions_name ON sessions (name);

CREATE TABLE entities (
    title text PRIMARY KEY,
    settings jsonb NOT NULL        -- node.domain.model.ApplicationEntity
);

CREATE TABLE leases (
    name text PRIMARY KEY,
    holder text NOT NULL,
    fence bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
