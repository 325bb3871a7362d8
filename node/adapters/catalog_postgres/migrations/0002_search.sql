-- What searches go by. Text is compared by code point (COLLATE "C") whatever the database's collation.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Patients: by ID (exactly and by prefix), by each component group of the name (by prefix and by infix),
-- by sound. Most names have one group only, so the other two have partial indexes.
CREATE INDEX patients_id ON patients (patient_id text_pattern_ops);
CREATE INDEX patients_name_1 ON patients (split_part(name, '=', 1) text_pattern_ops);
CREATE INDEX patients_name_2 ON patients (split_part(name, '=', 2) text_pattern_ops)
    WHERE split_part(name, '=', 2) <> '';
CREATE INDEX patients_name_3 ON patients (split_part(name, '=', 3) text_pattern_ops)
    WHERE split_part(name, '=', 3) <> '';
CREATE INDEX patients_name_infix_1 ON patients USING gin (split_part(name, '=', 1) gin_trgm_ops);
CREATE INDEX patients_name_infix_2 ON patients USING gin (split_part(name, '=', 2) gin_trgm_ops)
    WHERE split_part(name, '=', 2) <> '';
CREATE INDEX patients_name_infix_3 ON patients USING gin (split_part(name, '=', 3) gin_trgm_ops)
    WHERE split_part(name, '=', 3) <> '';
CREATE INDEX patients_name_sounds ON patients USING gin (name_sounds);
CREATE INDEX patients_birth_date ON patients (birth_date COLLATE "C");

-- Studies: the order of results, and the keys people type.
CREATE INDEX studies_newest ON studies (study_date COLLATE "C", study_pk);
CREATE INDEX studies_accession ON studies (accession_number text_pattern_ops);
CREATE INDEX studies_id ON studies (study_id text_pattern_ops);
CREATE INDEX studies_description_infix ON studies USING gin (description gin_trgm_ops);
CREATE INDEX studies_referring_1 ON studies (split_part(referring_physician, '=', 1) text_pattern_ops);

CREATE INDEX series_modality ON series (modality, study_pk);
