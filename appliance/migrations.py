"""The schema of umbra.db, one script a version; `user_version` says which have run."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE frames (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        name TEXT NOT NULL,
        product TEXT NOT NULL,
        lot TEXT NOT NULL,
        wafer TEXT,
        die_x INTEGER,
        die_y INTEGER,
        file_bytes INTEGER NOT NULL,
        width INTEGER,
        height INTEGER,
        bits INTEGER,
        first_seen_at TEXT NOT NULL,
        UNIQUE (path, sha256)
    );
    CREATE INDEX frames_by_lot ON frames (product, lot);
    CREATE INDEX frames_by_name ON frames (name);

    CREATE TABLE verdicts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        frame_id INTEGER NOT NULL REFERENCES frames (id),
        origin TEXT NOT NULL CHECK (origin IN ('inbox', 'screen')),
        verdict TEXT NOT NULL CHECK (verdict IN ('PASS', 'FAIL', 'RETEST')),
        hard INTEGER NOT NULL,
        soft TEXT,
        reason TEXT,
        class TEXT,
        p_ok REAL, p_spot REAL, p_diagonal REAL, p_error REAL,
        p_ng REAL,
        level REAL,
        score REAL,
        spec REAL NOT NULL,
        t REAL, alpha REAL, m_thresh INTEGER, m_alpha REAL,
        rois TEXT,
        histogram BLOB,
        noise_median REAL, noise_sigma REAL,
        bundle TEXT NOT NULL,
        engine TEXT NOT NULL,
        decided_at TEXT NOT NULL,
        ms_decode REAL, ms_inspect REAL, ms_total REAL,
        UNIQUE (frame_id, bundle),
        CHECK (verdict = 'RETEST' OR (score IS NOT NULL AND level IS NOT NULL AND p_ng IS NOT NULL))
    );
    CREATE INDEX verdicts_by_time ON verdicts (decided_at);

    CREATE TABLE labels (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        frame_id INTEGER NOT NULL REFERENCES frames (id),
        class TEXT,
        level REAL,
        boxes TEXT,
        who TEXT NOT NULL,
        at TEXT NOT NULL,
        note TEXT
    );
    CREATE INDEX labels_by_frame ON labels (frame_id);

    CREATE TABLE specs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        product TEXT,
        spec REAL NOT NULL CHECK (spec > 0 AND spec <= 1),
        who TEXT NOT NULL,
        at TEXT NOT NULL,
        note TEXT
    );

    CREATE TABLE bundles (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        identity TEXT NOT NULL,
        folder TEXT NOT NULL,
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );

    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL
    );

    CREATE TABLE cursors (
        name TEXT PRIMARY KEY,
        seq INTEGER NOT NULL
    );

    CREATE TRIGGER frames_are_kept BEFORE DELETE ON frames BEGIN SELECT RAISE(ABORT, 'frames are append-only'); END;
    CREATE TRIGGER verdicts_are_kept BEFORE DELETE ON verdicts BEGIN SELECT RAISE(ABORT, 'verdicts are append-only'); END;
    CREATE TRIGGER verdicts_stay BEFORE UPDATE ON verdicts BEGIN SELECT RAISE(ABORT, 'verdicts are append-only'); END;
    CREATE TRIGGER labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
    CREATE TRIGGER specs_stay BEFORE UPDATE ON specs BEGIN SELECT RAISE(ABORT, 'specs are append-only'); END;
    """,
    """
    ALTER TABLE labels ADD COLUMN box_classes TEXT;
    ALTER TABLE labels ADD COLUMN origin TEXT NOT NULL DEFAULT 'person' CHECK (origin IN ('person', 'proposal'));
    ALTER TABLE labels ADD COLUMN settles INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE labels ADD COLUMN empty INTEGER NOT NULL DEFAULT 0;
    CREATE TRIGGER labels_are_kept BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;

    CREATE TABLE class_names (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        old TEXT NOT NULL,
        new TEXT NOT NULL,
        last_label INTEGER NOT NULL,
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE INDEX frames_by_sha256 ON frames (sha256);
    CREATE INDEX verdicts_for_whatif ON verdicts (frame_id, seq, verdict, class, score);
    """,
    """
    CREATE INDEX events_by_kind ON events (kind);
    CREATE INDEX frames_by_time ON frames (first_seen_at);

    CREATE TABLE horizons (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        before TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE TRIGGER horizons_stay BEFORE UPDATE ON horizons BEGIN SELECT RAISE(ABORT, 'horizons are append-only'); END;
    DROP TRIGGER frames_are_kept;
    DROP TRIGGER verdicts_are_kept;
    CREATE TRIGGER verdicts_are_kept BEFORE DELETE ON verdicts
        WHEN OLD.decided_at >= COALESCE((SELECT MAX(before) FROM horizons), '')
        BEGIN SELECT RAISE(ABORT, 'verdicts are append-only'); END;
    CREATE TRIGGER frames_are_kept BEFORE DELETE ON frames
        WHEN EXISTS (SELECT 1 FROM verdicts WHERE frame_id = OLD.id)
            OR OLD.first_seen_at >= COALESCE((SELECT MAX(before) FROM horizons), '')
        BEGIN SELECT RAISE(ABORT, 'frames are append-only'); END;
    """,
    """
    CREATE INDEX horizons_by_time ON horizons (before);
    """,
    """
    CREATE INDEX verdicts_by_verdict ON verdicts (verdict);
    CREATE INDEX verdicts_by_class ON verdicts (class);
    CREATE INDEX verdicts_by_verdict_and_class ON verdicts (verdict, class);
    CREATE INDEX verdicts_by_score ON verdicts (score);
    CREATE INDEX frames_by_lot_of_any_product ON frames (lot);
    """,
    """
    CREATE TABLE retractions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        label_id INTEGER NOT NULL UNIQUE REFERENCES labels (id),
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE TRIGGER retractions_stay BEFORE UPDATE ON retractions BEGIN SELECT RAISE(ABORT, 'retractions are append-only'); END;
    CREATE TRIGGER retractions_are_kept BEFORE DELETE ON retractions
        BEGIN SELECT RAISE(ABORT, 'retractions are append-only'); END;

    CREATE TABLE rating_sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE TABLE rating_frames (
        session_id INTEGER NOT NULL REFERENCES rating_sessions (id),
        frame_id INTEGER NOT NULL REFERENCES frames (id),
        PRIMARY KEY (session_id, frame_id)
    ) WITHOUT ROWID;
    CREATE INDEX rating_frames_by_frame ON rating_frames (frame_id);
    CREATE TABLE ratings (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id INTEGER NOT NULL,
        frame_id INTEGER NOT NULL,
        rater TEXT NOT NULL,
        score REAL NOT NULL CHECK (score BETWEEN 0 AND 10),
        at TEXT NOT NULL,
        FOREIGN KEY (session_id, frame_id) REFERENCES rating_frames (session_id, frame_id)
    );
    CREATE INDEX ratings_by_session ON ratings (session_id, rater, frame_id);
    CREATE TRIGGER ratings_stay BEFORE UPDATE ON ratings BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;
    CREATE TRIGGER ratings_are_kept BEFORE DELETE ON ratings BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;
    """,
    """
    CREATE INDEX verdicts_measured_by_bundle ON verdicts (bundle, seq) WHERE histogram IS NOT NULL;
    DROP TRIGGER labels_are_kept;
    CREATE TRIGGER labels_are_kept BEFORE DELETE ON labels
        WHEN OLD.origin <> 'proposal' OR EXISTS (SELECT 1 FROM verdicts WHERE frame_id = OLD.frame_id)
        BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
    """,
    """
    CREATE TABLE label_names (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        label_id INTEGER NOT NULL REFERENCES labels (id) ON DELETE CASCADE,
        after_rename INTEGER NOT NULL,
        old TEXT NOT NULL,
        new TEXT NOT NULL,
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE INDEX label_names_by_label ON label_names (label_id);
    CREATE TRIGGER label_names_stay BEFORE UPDATE ON label_names
        BEGIN SELECT RAISE(ABORT, 'names of labels are append-only'); END;
    CREATE TRIGGER label_names_are_kept BEFORE DELETE ON label_names WHEN EXISTS (SELECT 1 FROM labels WHERE id = OLD.label_id)
        BEGIN SELECT RAISE(ABORT, 'names of labels are append-only'); END;
    """,
)
