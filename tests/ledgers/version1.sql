-- A ledger as version 1 wrote it. Never change it.
PRAGMA application_id = 1231965557;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE answers (
        ask INTEGER PRIMARY KEY, value NOT NULL, probabilities TEXT, numbered INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL, card TEXT NOT NULL, engine TEXT NOT NULL,
        finish TEXT NOT NULL, time REAL NOT NULL);
INSERT INTO "answers" VALUES(1,'Fine.',NULL,0,1,1,0,'scripted','scripted','stop',1.79539025994173908227e+09);
INSERT INTO "answers" VALUES(2,'good','{"good":0.75,"bad":0.25}',0,1,1,0,'scripted','scripted','stop',1.79539025994173908227e+09);
INSERT INTO "answers" VALUES(3,'{"name":"Dupont","amount":1250.5}',NULL,0,1,1,0,'scripted','scripted','stop',1.79539025994173908227e+09);
INSERT INTO "answers" VALUES(4,X'64000000000000E03F000000000000D0BF9A9999999999B93F',NULL,0,1,1,0,'scripted','scripted','stop',1.79539025994173908227e+09);
CREATE TABLE asks (
        number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, frame INTEGER NOT NULL,
        document TEXT, question TEXT);
INSERT INTO "asks" VALUES(1,X'511EAD93EBB7EE31F7C941C832DD5544F725AB58F92DFE89B3818A38866BD7D2',1,'Une belle journée','How is it?');
INSERT INTO "asks" VALUES(2,X'0D9E74F643A05832EE7F569B844A70BB699B5FD0BAB1175FD9E40E7422305A3F',2,'Une belle journée','How is it?');
INSERT INTO "asks" VALUES(3,X'584C26A44E530E5640CF490F179763BACA6C30AE10268E0E6201F56704DC8FA8',3,'Une belle journée','How is it?');
INSERT INTO "asks" VALUES(4,X'07E9D251A186BE7CE0E1DF3C270CD259AEAA6FC4D963101AF25DE3746CD3D800',4,'Une belle journée','');
CREATE TABLE calls (
        number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('run', 'intent', 'outcome', 'refusal')),
        intent INTEGER, run TEXT, principal TEXT NOT NULL, source TEXT, sensitivity TEXT,
        card TEXT, engine TEXT, host TEXT, policy_line TEXT, bytes_sent INTEGER,
        asks INTEGER, answered INTEGER, from_ledger INTEGER, failed INTEGER,
        prompt_tokens INTEGER, completion_tokens INTEGER, cost_micros INTEGER, currency TEXT,
        outcome TEXT, digest BLOB, chain BLOB);
CREATE TABLE feedback (
        number INTEGER PRIMARY KEY, ask INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('thumbs', 'edit', 'label')), value TEXT NOT NULL,
        principal TEXT NOT NULL, time REAL NOT NULL);
INSERT INTO "feedback" VALUES(1,1,'thumbs','up','anna',1.79539025994215130808e+09);
CREATE TABLE frames (
        number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, verb TEXT NOT NULL,
        identity TEXT NOT NULL, content TEXT NOT NULL);
INSERT INTO "frames" VALUES(1,X'399E2279ADF55E195EB7B232F32B00A77178F1E8F37CB28DE36844ABB0227559','say','scripted','{"verb":"say","identity":"scripted","instruction":"Judge.","layout":"instruction_first","fence":true,"history":[],"max_tokens":1024,"temperature":0.0,"top_p":1.0,"seed":null,"stop":[],"truncate":false}');
INSERT INTO "frames" VALUES(2,X'2948F44A2E150CF1B31D1B6EC33E67ECB50AFE25BD91F04E2803E3B6C1C6A37E','choose','scripted','{"verb":"choose","identity":"scripted","instruction":"Judge.","layout":"instruction_first","fence":true,"history":[],"options":["good","bad"],"descriptions":[]}');
INSERT INTO "frames" VALUES(3,X'B84FB9CA2D72B13C6C4F2628C6199FAE42C668C5090C9C30D12E7B463E634933','fill','scripted','{"verb":"fill","identity":"scripted","instruction":"Judge.","layout":"instruction_first","fence":true,"history":[],"schema":"{\"type\":\"object\"}","max_tokens":1024}');
INSERT INTO "frames" VALUES(4,X'D7970DFDBF63BE547EE8D5C41190133122ED8C17E6688F27C52FDA06E27F4637','embed','scripted','{"verb":"embed","identity":"scripted","kind":"passage"}');
CREATE TABLE origins (
        ask INTEGER NOT NULL, principal TEXT NOT NULL, source TEXT NOT NULL,
        sensitivity TEXT NOT NULL, time REAL NOT NULL,
        PRIMARY KEY (ask, principal, source, sensitivity)) WITHOUT ROWID;
INSERT INTO "origins" VALUES(1,'anna','a.csv','internal',1.79539025994173908227e+09);
INSERT INTO "origins" VALUES(2,'anna','a.csv','internal',1.79539025994173908227e+09);
INSERT INTO "origins" VALUES(3,'anna','a.csv','internal',1.79539025994173908227e+09);
INSERT INTO "origins" VALUES(4,'anna','a.csv','internal',1.79539025994173908227e+09);
CREATE INDEX feedback_of_ask ON feedback (ask);
COMMIT;
