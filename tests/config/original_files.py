"""Configs as the original's users have them: its names, values and ways of writing, from all its releases."""

from __future__ import annotations

KEY = "bVCyTsGaggVy5yqQ/UzluN29DZW41M3hTSkx6Y3NtZmRuQkR2TnJxUTYzcjQ="
OTHER_KEY = "q6u26onRvXVG4427/M0NFQzhSSldCY01rckJNa1JYZ3g2NUFtSnNOVGdoU0E="
ACTIVE = "bVCyTsGaggVy5yqQ"
SECRET = "SuperSecureSecret1337"
# '123SuperMegaSafe'
PASSWORD_HASH = (
    "JGFyZ29uMmlkJHY9MTkkbT0zMix0PTIscD0xJE9FbFZURnAwU0V0bFJ6ZFBlSEZDT0EkTklCN0txTy8vanB4WFE5bUdCaVM2SlhraEpwaWVYOFRU"
    "NW5qdG9wcXkzQQ=="
)

# The env file that its server reads, with the hard shapes of its comments: quotes, assignments, lists of nodes.
ENV_FILE = f'''# prefix of all names: HQL_

#HQL_NODE_ID_FROM=k8s
HQL_NODE_ID=1

# id addr_raft addr_api
# id addr_raft addr_api
HQL_NODES="
1 localhost:8100 localhost:8200
"
#HQL_DATA_DIR=my_hiqlite
#HQL_FILENAME_DB=my_hiqlite.db
HQL_LOG_STATEMENTS=true
#HQL_READ_POOL_SIZE=4
#HQL_SYNC_IMMEDIATE=false
HQL_LOGS_UNTIL_SNAPSHOT=10000
HQL_SHUTDOWN_DELAY_MILLS=5000

#HQL_TLS_RAFT_KEY=tls/key.pem
#HQL_TLS_RAFT_DANGER_TLS_NO_VERIFY=true
HQL_SECRET_RAFT={SECRET}
HQL_SECRET_API={SECRET}
HQL_HEALTH_CHECK_DELAY_SECS=30
HQL_ENC_KEYS_FROM=env

# "sec min hour day_of_month month day_of_week year"
HQL_BACKUP_CRON="0 30 2 * * * *"
HQL_BACKUP_KEEP_DAYS=30
HQL_BACKUP_KEEP_DAYS_LOCAL=3
#HQL_BACKUP_RESTORE=
#HQL_S3_URL=https://s3.example.com

# ENC_KEYS="
# {OTHER_KEY}
# "
ENC_KEYS="
{KEY}
"
ENC_KEY_ACTIVE={ACTIVE}

# '123SuperMegaSafe' is the password
HQL_PASSWORD_DASHBOARD={PASSWORD_HASH}
HQL_INSECURE_COOKIE=true
#HQL_IGNORE_WAL_LOCK=true
#HQL_CACHE_STORAGE_DISK=true
#HQL_DANGER_RAFT_STATE_RESET=true
'''

# What its server's `generate-config` writes: a folder in the home, keys of its own.
GENERATED_ENV_FILE = f'''HQL_NODE_ID=1
#HQL_NODES="
#1 localhost:8100 localhost:8200
#2 localhost:8100 localhost:8200
#"
HQL_NODES="
1 localhost:8100 localhost:8200
"
HQL_DATA_DIR=/var/lib/hiqlite/data
HQL_LOGS_UNTIL_SNAPSHOT=10000
HQL_SECRET_RAFT=bYpSvDQ0vXbC9JVqnV2wQh0PyaFz3k8m
HQL_SECRET_API=t2Qe1nVXcWmLzR8dJ0uGk5yHsBf7aPq4
HQL_BACKUP_KEEP_DAYS=30
HQL_BACKUP_KEEP_DAYS_LOCAL=3
ENC_KEYS="
{KEY}
{OTHER_KEY}
"
ENC_KEY_ACTIVE=q6u26onRvXVG4427
HQL_PASSWORD_DASHBOARD={PASSWORD_HASH}
HQL_INSECURE_COOKIE=false
'''

# The TOML file of its first releases that had one.
OLDER_TOML_FILE = f'''[hiqlite]
#node_id_from = "k8s"
node_id = 1
nodes = [
    "1 localhost:8100 localhost:8200",
    "2 localhost:8101 localhost:8201",
    "3 localhost:8102 localhost:8202",
]
listen_addr_api = "0.0.0.0"
listen_addr_raft = "0.0.0.0"
data_dir = "data"
filename_db = "hiqlite.db"
log_statements = true
prepared_statement_cache_capacity = 1000
read_pool_size = 4
log_sync = "interval_200"
wal_size = 2097152
cache_storage_disk = true
logs_until_snapshot = 10000
shutdown_delay_millis = 5000
secret_raft = "{SECRET}"
secret_api = "{SECRET}"
health_check_delay_secs = 30
backup_config = "0 30 2 * * * *"
backup_keep_days = 30
backup_keep_days_local = 3
enc_keys = [
    "{KEY}",
]
enc_key_active = "{ACTIVE}"
password_dashboard = "{PASSWORD_HASH}"
insecure_cookie = true
wal_ignore_lock = true
'''

# That of its newest release: durations in words, limits of rates.
TOML_FILE = f'''# for development only

[hiqlite]
node_id = 1
listen_addr_api = "0.0.0.0"
listen_addr_raft = "0.0.0.0"
data_dir = "data"
filename_db = "hiqlite.db"
log_statements = true
prepared_statement_cache_capacity = 1000
read_pool_size = 4
log_sync = "interval_200"
wal_size = 2097152
cache_storage_disk = true
logs_until_snapshot = 10000
tls_auto_certificates = true
secret_raft = "{SECRET}"
secret_api = "{SECRET}"
health_check_delay = 30
learner_only = false
backup_cron = "0 30 2 * * * *"
backup_keep_for = '30d'
backup_keep_for_local = '3d'
enc_keys = [
    "{KEY}",
]
enc_key_active = "{ACTIVE}"
password_dashboard = "{PASSWORD_HASH}"
insecure_cookie = true
rate_limit_cache_rps = 50000
rate_limit_cache_burst = 100000
rate_limit_db_rps = 100000
rate_limit_db_burst = 200000
'''

# Its reference, with the secrets in a file of their own.
REFERENCE_TOML_FILE = '''[hiqlite]
node_id = 0
nodes = ["1 localhost:8100 localhost:8200"]
log_statements = false
read_pool_size = 4
log_sync = "interval_200"
cache_storage_disk = true
tls_auto_certificates = false
secrets_file = "secrets.toml"
secret_raft = "$SECRETS"
secret_api = "$SECRETS"
health_check_delay = "30s"
backup_cron = "0 30 2 * * * *"
backup_keep_for = "30d"
backup_keep_for_local = "3d"
s3_url = "https://s3.example.com"
s3_bucket = "my_bucket"
s3_region = "my_region"
s3_path_style = true
s3_key = "$SECRETS"
s3_secret = "$SECRETS"
enc_keys = ["$SECRETS"]
enc_key_active = "$SECRETS"
password_dashboard = "$SECRETS"
insecure_cookie = false
'''
SECRETS_FILE = f'''[hiqlite]
secret_raft = "SuperSecureRaftSecret1337"
secret_api = "SuperSecureApiSecret1337"
s3_key = "my_key"
s3_secret = "my_secret"
enc_keys = ["{KEY}"]
enc_key_active = "{ACTIVE}"
password_dashboard = "{PASSWORD_HASH}"
'''

# Every variable that one of its releases reads, with a value that it takes.
VARIABLES = {
    "HQL_NODE_ID": "1", "HQL_NODES": "1 localhost:8100 localhost:8200", "HQL_LISTEN_ADDR_API": "0.0.0.0",
    "HQL_LISTEN_ADDR_RAFT": "0.0.0.0", "HQL_DATA_DIR": "data", "HQL_FILENAME_DB": "hiqlite.db",
    "HQL_LOG_STATEMENTS": "false", "HQL_READ_POOL_SIZE": "4", "HQL_LOG_SYNC": "interval_200",
    "HQL_SYNC_IMMEDIATE": "false", "HQL_WAL_SIZE": "2097152", "HQL_CACHE_STORAGE_DISK": "true",
    "HQL_LOGS_UNTIL_SNAPSHOT": "10000", "HQL_SHUTDOWN_DELAY_MILLS": "5000", "HQL_TLS_AUTO_CERTS": "false",
    "HQL_TLS_RAFT_KEY": "k", "HQL_TLS_RAFT_CERT": "c", "HQL_TLS_RAFT_DANGER_TLS_NO_VERIFY": "true",
    "HQL_TLS_API_KEY": "k", "HQL_TLS_API_CERT": "c", "HQL_TLS_API_DANGER_TLS_NO_VERIFY": "true",
    "HQL_TLS_RAFT_NO_VERIFY": "true", "HQL_TLS_API_NO_VERIFY": "true", "HQL_SECRET_RAFT": SECRET,
    "HQL_SECRET_API": SECRET, "HQL_HEALTH_CHECK_DELAY_SECS": "30", "HQL_HEALTH_CHECK_DELAY": "30s",
    "HQL_LEARNER_ONLY": "false", "HQL_BACKUP_CRON": "0 30 2 * * * *", "HQL_BACKUP_KEEP_DAYS": "30",
    "HQL_BACKUP_KEEP_DAYS_LOCAL": "3", "HQL_BACKUP_KEEP_FOR": "30d", "HQL_BACKUP_KEEP_FOR_LOCAL": "3d",
    "HQL_BACKUP_RESTORE": "s3:backup.sqlite", "HQL_BACKUP_SKIP_VALIDATION": "true",
    "HQL_S3_URL": "https://s3.example.com", "HQL_S3_BUCKET": "my_bucket", "HQL_S3_REGION": "example",
    "HQL_S3_PATH_STYLE": "true", "HQL_S3_KEY": "s3_key", "HQL_S3_SECRET": "s3_secret", "HQL_ENC_KEYS_FROM": "env",
    "ENC_KEYS": f"\n{KEY}\n", "ENC_KEY_ACTIVE": ACTIVE, "HQL_PASSWORD_DASHBOARD": PASSWORD_HASH,
    "HQL_INSECURE_COOKIE": "true", "HQL_RL_CACHE_RPS": "50000", "HQL_RL_CACHE_BURST": "100000",
    "HQL_RL_DB_RPS": "100000", "HQL_RL_DB_BURST": "200000", "HQL_IGNORE_WAL_LOCK": "true",
    "HQL_WAL_IGNORE_LOCK": "true", "HQL_CHECK_WAL_INTEGRITY": "true", "HQL_SPLIT_BRAIN_INTERVAL": "300",
    "HQL_DANGER_RAFT_STATE_RESET": "false",
}  # fmt: skip
