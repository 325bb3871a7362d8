-- Admitting an instance below a series that exists: one call, so one round trip and one statement to bind
-- for what happens most. What it does and why is told in admission.py, which calls it.
--
-- A function of this name and arguments is never changed: while a node of the next version serves beside
-- one of this, each calls its own.

CREATE FUNCTION admit_instance_1(
    new_lock bigint, new_patient_key text, new_study_uid text, new_series_uid text,
    new_sop_instance_uid text, new_sop_class_uid text, new_transfer_syntax_uid text,
    new_instance_number bigint, new_number_of_frames integer, new_attributes jsonb, new_header bytea,
    new_object_name text, new_prefix_length integer, new_dataset_length bigint, new_digest bytea,
    new_source text, event_action text, event_outcome text, event_actor text, event_address text,
    event_protocol text, event_study_uids text[], event_detail jsonb
)
RETURNS TABLE (
    same boolean, other_patient boolean, object_name text, prefix_length integer, dataset_length bigint,
    received_at timestamptz, number_of_frames integer
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- A statement of its own: what follows must see what was committed before the lock was had.
    PERFORM pg_advisory_xact_lock_shared(new_lock);
    RETURN QUERY
    WITH parent AS (
        SELECT series.series_pk, studies.study_pk, series.prepared,
               patients.patient_key <> new_patient_key AS other_patient
        FROM series JOIN studies USING (study_pk) JOIN patients USING (patient_pk)
        WHERE series.series_uid = new_series_uid AND studies.study_uid = new_study_uid
    ), admitted AS (
        INSERT INTO instances (
            sop_instance_uid, series_pk, study_pk, sop_class_uid, transfer_syntax_uid, instance_number,
            number_of_frames, attributes, header, object_name, prefix_length, dataset_length, digest, source
        )
        SELECT new_sop_instance_uid, series_pk, study_pk, new_sop_class_uid, new_transfer_syntax_uid,
               new_instance_number, new_number_of_frames, new_attributes, new_header, new_object_name,
               new_prefix_length, new_dataset_length, new_digest, new_source
        FROM parent
        ON CONFLICT (sop_instance_uid) DO UPDATE SET received_again_at = CASE
            WHEN instances.digest = excluded.digest
             AND instances.transfer_syntax_uid = excluded.transfer_syntax_uid THEN now()
            ELSE instances.received_again_at END
        RETURNING instances.*, digest = new_digest AND transfer_syntax_uid = new_transfer_syntax_uid AS same
    ), changed AS (
        UPDATE series SET prepared = false FROM parent, admitted
        WHERE series.series_pk = parent.series_pk AND parent.prepared
          AND admitted.object_name = new_object_name
    ), audited AS (
        INSERT INTO audit_events (action, outcome, actor, address, protocol, study_uids, detail)
        SELECT event_action, CASE WHEN same THEN event_outcome ELSE 'conflict' END, event_actor,
               event_address, event_protocol, event_study_uids,
               CASE WHEN other_patient THEN event_detail || '{"other_patient": true}' ELSE event_detail END
        FROM admitted, parent
    )
    SELECT admitted.same, parent.other_patient, admitted.object_name, admitted.prefix_length,
           admitted.dataset_length, admitted.received_at, admitted.number_of_frames
    FROM admitted, parent;
END
$$;
