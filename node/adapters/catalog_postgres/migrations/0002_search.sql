-- What searches go by. Text is compared by code point (COLLATE "C") whatever the database's collation.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Patients: by ID (exactly and by prefix), by name (prefix and infix), by sound. A name's further component
-- groups are rare, so their prefixes have partial indexes.
CREATE INDEX patients_id ON patients (patient_id text_pattern_ops);
CREATE INDEX patients_name ON patients (name text_pattern_ops) INCLUDE (patient_pk);
CREATE INDEX patients_name_2 ON patients (split_part(name, '=', 2) text_pattern_ops)
    WHERE split_part(name, '=', 2) <> '';
CREATE INDEX patients_name_3 ON patients (split_part(name, '=', 3) text_pattern_ops)
    WHERE split_part(name, '=', 3) <> '';
CREATE INDEX patients_name_infix ON patients USING gin (name gin_trgm_ops);
CREATE INDEX patients_name_sounds ON patients USING gin (name_sounds);
CREATE INDEX patients_birth_date ON patients (birth_date COLLATE "C");

-- The patient's name beside the study's date, so that one index answers "the newest studies of patients
-- with this frequent name" by itself. Kept by the database, so that no code can forget it; FOR SHARE lets
-- a study that is being added wait for a name that is being changed.
ALTER TABLE studies ADD COLUMN patient_name text NOT NULL DEFAULT '';

CREATE FUNCTION studies_take_patient_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT name INTO NEW.patient_name FROM patients WHERE patient_pk = NEW.patient_pk FOR SHARE;
    RETURN NEW;
END
$$;
CREATE TRIGGER take_patient_name BEFORE INSERT OR UPDATE OF patient_pk ON studies
    FOR EACH ROW EXECUTE FUNCTION studies_take_patient_name();

CREATE FUNCTION patients_give_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE studies SET patient_name = NEW.name WHERE patient_pk = NEW.patient_pk;
    RETURN NULL;
END
$$;
CREATE TRIGGER give_name AFTER UPDATE OF name ON patients
    FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION patients_give_name();

UPDATE studies SET patient_name = name FROM patients WHERE patients.patient_pk = studies.patient_pk;

-- Studies: the order of results (of all, and of a patient's), and the keys that people type.
CREATE INDEX studies_newest ON studies (study_date COLLATE "C", study_pk) INCLUDE (patient_name);
CREATE INDEX studies_patient_newest ON studies (patient_pk, study_date COLLATE "C", study_pk);
DROP INDEX studies_patient;
CREATE INDEX studies_accession ON studies (accession_number text_pattern_ops);
CREATE INDEX studies_id ON studies (study_id text_pattern_ops);
CREATE INDEX studies_description_infix ON studies USING gin (description gin_trgm_ops);
CREATE INDEX studies_referring_physician ON studies USING gin (referring_physician gin_trgm_ops);

CREATE INDEX series_modality ON series (modality, study_pk);

-- Rows are inserted and hardly ever changed, so vacuum would seldom come by; but only where it has been
-- does an index answer without looking at the table.
ALTER TABLE patients SET (autovacuum_vacuum_insert_scale_factor = 0.02);
ALTER TABLE studies SET (autovacuum_vacuum_insert_scale_factor = 0.02);
ALTER TABLE series SET (autovacuum_vacuum_insert_scale_factor = 0.02);
ALTER TABLE instances SET (autovacuum_vacuum_insert_scale_factor = 0.02);
