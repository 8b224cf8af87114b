"""Words that occur nowhere but where they are planted; in the secret ones, characters that encodings change."""

SECRET_SETTING = 'setting<"canary-5f1b">&\\'
SECRET_IN_JSON = "json-canary-77aa"
QUERY = "query_canary_c03d"
QUERY_THAT_FAILS = "query_canary_e91f"
SOURCE = "vault-canary-20c4"
SOURCE_AWAY = "vault-canary-9b7e"
PASSWORD = "password-canary-8d2a"
HTTP_PATH = "path-canary-41d6"
HTTP_BODY = "template-canary-b6f0"
HTTP_ANSWER = "answer-canary-63e8"
PYTHON_TEXT = "python-canary-d5c2"
PYTHON_MODULE = "tests.security.functions"
USER_KEY = "alk_user-canary-1e9f"
OPERATOR_KEY = "alk_operator-canary-f4a7"
FORMER_KEY = "alk_former-canary-6c3b"

PUBLIC_SETTING = 'public<"canary-0a0a">&é'
PUBLIC_PARAM = "public-param-5555"
RESULT_ROW = "row-canary-92b7"
