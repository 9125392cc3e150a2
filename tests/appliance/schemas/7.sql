-- A log as schema 7 stored it, frozen: what the files share is what did not change.
BEGIN TRANSACTION;
CREATE TABLE bundles (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        identity TEXT NOT NULL,
        folder TEXT NOT NULL,
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
INSERT INTO "bundles" VALUES(1,'starter@2db08c350fd2','starter','jo','2026-01-01T00:00:00.000Z');
CREATE TABLE class_names (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        old TEXT NOT NULL,
        new TEXT NOT NULL,
        last_label INTEGER NOT NULL,
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
INSERT INTO "class_names" VALUES(1,'scratch','line',2,'jo','2026-01-05T00:00:00.000Z');
CREATE TABLE cursors (
        name TEXT PRIMARY KEY,
        seq INTEGER NOT NULL
    );
INSERT INTO "cursors" VALUES('outbox',2);
CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL
    );
INSERT INTO "events" VALUES(1,'2026-01-01T00:00:00.000Z','screener.started','{"bundle": "starter@2db08c350fd2"}');
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
INSERT INTO "frames" VALUES(1,'P/L/a.tif','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','a.tif','P','L','1',2,3,108000,360,300,8,'2026-01-02T03:04:05.678Z');
INSERT INTO "frames" VALUES(2,'P/L/b.tif','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','b.tif','P','L',NULL,NULL,NULL,12,NULL,NULL,NULL,'2026-01-02T03:04:06.678Z');
CREATE TABLE horizons (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        before TEXT NOT NULL,
        at TEXT NOT NULL
    );
CREATE TABLE labels (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        frame_id INTEGER NOT NULL REFERENCES frames (id),
        class TEXT,
        level REAL,
        boxes TEXT,
        who TEXT NOT NULL,
        at TEXT NOT NULL,
        note TEXT
    , box_classes TEXT, origin TEXT NOT NULL DEFAULT 'person' CHECK (origin IN ('person', 'proposal')), settles INTEGER NOT NULL DEFAULT 0, empty INTEGER NOT NULL DEFAULT 0);
INSERT INTO "labels" VALUES(1,1,'Spot',4.5,'[[10, 20, 30, 40]]','jo','2026-01-03T00:00:00.000Z','seen by eye',NULL,'person',0,0);
INSERT INTO "labels" VALUES(2,1,'Spot',5.0,'[[10, 20, 30, 40]]','starter','2026-01-04T00:00:00.000Z',NULL,'["scratch"]','proposal',0,0);
CREATE TABLE rating_frames (
        session_id INTEGER NOT NULL REFERENCES rating_sessions (id),
        frame_id INTEGER NOT NULL REFERENCES frames (id),
        PRIMARY KEY (session_id, frame_id)
    ) WITHOUT ROWID;
CREATE TABLE rating_sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
CREATE TABLE ratings (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id INTEGER NOT NULL,
        frame_id INTEGER NOT NULL,
        rater TEXT NOT NULL,
        score REAL NOT NULL CHECK (score BETWEEN 0 AND 10),
        at TEXT NOT NULL,
        FOREIGN KEY (session_id, frame_id) REFERENCES rating_frames (session_id, frame_id)
    );
CREATE TABLE retractions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        label_id INTEGER NOT NULL UNIQUE REFERENCES labels (id),
        who TEXT NOT NULL,
        at TEXT NOT NULL
    );
CREATE TABLE specs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        product TEXT,
        spec REAL NOT NULL CHECK (spec > 0 AND spec <= 1),
        who TEXT NOT NULL,
        at TEXT NOT NULL,
        note TEXT
    );
INSERT INTO "specs" VALUES(1,'P',0.3,'jo','2026-01-03T00:00:00.000Z','customer');
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
INSERT INTO "verdicts" VALUES(1,1,'inbox','PASS',1,'OK',NULL,'OK',0.99,0.005,0.003,0.002,0.01,1.5,0.0015,0.185,0.73,4.0,12,3.5,'[{"box": [1, 2, 3, 4], "score": 0.5, "peak": 0.9, "pixels": 12}]',X'00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000',64.0,4.0,'starter@2db08c350fd2','openvino-int8@772e7ece2c1e','2026-01-02T03:04:05.700Z',1.0,30.0,31.0);
INSERT INTO "verdicts" VALUES(2,2,'screen','RETEST',3,NULL,'unreadable: empty file',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0.185,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'starter@2db08c350fd2','openvino-int8@772e7ece2c1e','2026-01-02T03:04:06.700Z',1.0,0.0,1.0);
CREATE TRIGGER retractions_stay BEFORE UPDATE ON retractions BEGIN SELECT RAISE(ABORT, 'retractions are append-only'); END;
CREATE TRIGGER retractions_are_kept BEFORE DELETE ON retractions
        BEGIN SELECT RAISE(ABORT, 'retractions are append-only'); END;
CREATE INDEX rating_frames_by_frame ON rating_frames (frame_id);
CREATE INDEX ratings_by_session ON ratings (session_id, rater, frame_id);
CREATE TRIGGER ratings_stay BEFORE UPDATE ON ratings BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;
CREATE TRIGGER ratings_are_kept BEFORE DELETE ON ratings BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END;
CREATE INDEX frames_by_lot ON frames (product, lot);
CREATE INDEX frames_by_name ON frames (name);
CREATE INDEX verdicts_by_time ON verdicts (decided_at);
CREATE INDEX labels_by_frame ON labels (frame_id);
CREATE TRIGGER verdicts_stay BEFORE UPDATE ON verdicts BEGIN SELECT RAISE(ABORT, 'verdicts are append-only'); END;
CREATE TRIGGER labels_stay BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
CREATE TRIGGER specs_stay BEFORE UPDATE ON specs BEGIN SELECT RAISE(ABORT, 'specs are append-only'); END;
CREATE INDEX frames_by_sha256 ON frames (sha256);
CREATE INDEX verdicts_for_whatif ON verdicts (frame_id, seq, verdict, class, score);
CREATE INDEX events_by_kind ON events (kind);
CREATE INDEX frames_by_time ON frames (first_seen_at);
CREATE INDEX horizons_by_time ON horizons (before);
CREATE INDEX verdicts_by_verdict ON verdicts (verdict);
CREATE INDEX verdicts_by_class ON verdicts (class);
CREATE INDEX verdicts_by_verdict_and_class ON verdicts (verdict, class);
CREATE INDEX verdicts_by_score ON verdicts (score);
CREATE INDEX frames_by_lot_of_any_product ON frames (lot);
CREATE TRIGGER horizons_stay BEFORE UPDATE ON horizons BEGIN SELECT RAISE(ABORT, 'horizons are append-only'); END;
CREATE TRIGGER verdicts_are_kept BEFORE DELETE ON verdicts
        WHEN OLD.decided_at >= COALESCE((SELECT MAX(before) FROM horizons), '')
        BEGIN SELECT RAISE(ABORT, 'verdicts are append-only'); END;
CREATE TRIGGER frames_are_kept BEFORE DELETE ON frames
        WHEN EXISTS (SELECT 1 FROM verdicts WHERE frame_id = OLD.id)
            OR OLD.first_seen_at >= COALESCE((SELECT MAX(before) FROM horizons), '')
        BEGIN SELECT RAISE(ABORT, 'frames are append-only'); END;
CREATE INDEX verdicts_measured_by_bundle ON verdicts (bundle, seq) WHERE histogram IS NOT NULL;
CREATE TRIGGER labels_are_kept BEFORE DELETE ON labels
        WHEN OLD.origin <> 'proposal' OR EXISTS (SELECT 1 FROM verdicts WHERE frame_id = OLD.frame_id)
        BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('frames',2);
INSERT INTO "sqlite_sequence" VALUES('verdicts',2);
INSERT INTO "sqlite_sequence" VALUES('labels',2);
INSERT INTO "sqlite_sequence" VALUES('specs',1);
INSERT INTO "sqlite_sequence" VALUES('bundles',1);
INSERT INTO "sqlite_sequence" VALUES('events',1);
INSERT INTO "sqlite_sequence" VALUES('class_names',1);
COMMIT;
PRAGMA user_version=7;
