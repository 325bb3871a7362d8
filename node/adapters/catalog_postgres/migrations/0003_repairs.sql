-- no transaction
-- "Was this instance deleted, or made anew, since?" is asked of the audit trail for every object without a
-- row. Such events are rare; storing and reading touch no index.
DROP INDEX CONCURRENTLY IF EXISTS audit_events_fates;
CREATE INDEX CONCURRENTLY audit_events_fates ON audit_events USING gin (study_uids)
    WHERE action IN ('delete', 'rebuild');
