# Stock Python clients: libsql (Rust inside), SQLAlchemy on it, and turso_serverless, which uses cursors.
for script in libsql sqlalchemy turso_serverless; do
  create_database "interop/python-$script"
  part "Python $script" python_tests "tests/interop/python/${script}_test.py" "$url/db/interop/python-$script"
done
