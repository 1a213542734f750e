// Our side of the interop test with stock S3 services (s3/run.py): does with the product's code
// what an archive does with a bucket, and checks what comes back.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "archive/object_store.h"

namespace offprint::archive {
namespace {

constexpr std::string_view kUsage =
    "usage: s3_tool all URL            every check; the prefix of URL must be empty before\n"
    "       s3_tool small URL          put, get and remove of one small object\n"
    "       s3_tool fails URL CODE     a put fails with this code: unauthorized, not_found\n"
    "       s3_tool put URL KEY SIZE TIMESTAMP_MS\n"
    "       s3_tool cat URL KEY\n";

std::string pattern(std::size_t size) {
  std::string text;
  text.reserve(size + 16);
  for (std::uint64_t i = 0; text.size() < size; ++i)
    text += fmt::format("{:x},", i * i * 2654435761);
  text.resize(size);
  return text;
}

class Checks {
 public:
  explicit Checks(ObjectStore& store) : store_(store) {}

  Result<> small();
  void all();
  // Counted by name.
  void check(std::string_view name, const Result<>& result) {
    if (result) {
      ++passed_;
    } else {
      ++failed_;
      fmt::print("FAILED {}: {}\n", name, result.error().message());
    }
  }
  int report() const {
    fmt::print("{} passed, {} failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

  Result<ObjectInfo> put(const std::string& key, std::string_view content,
                         const PutOptions& options = {}) {
    ltx::BytesSource source(as_bytes(content));
    return store_.put(key, source, options);
  }

 private:
  Result<> has(const std::string& key, std::string_view content, std::uint64_t offset = 0) {
    OFFPRINT_TRY_ASSIGN(auto source, store_.get(key, offset));
    Bytes all(content.size() + 1);
    OFFPRINT_TRY_ASSIGN(std::size_t got, source->read(all));
    if (as_text(ByteView(all).first(got)) == content) return {};
    return fail(Code::kCorrupt, fmt::format("{}: other {} bytes came back", key, got));
  }
  static Result<> refused(const Error* error, Code code) {
    if (error != nullptr && error->code() == code) return {};
    return fail(Code::kInternal, error == nullptr ? "was accepted" : error->message());
  }
  template <class T>
  static Result<> refused(const Result<T>& result, Code code) {
    return refused(result ? nullptr : &result.error(), code);
  }
  static Result<> equal(bool same) {
    if (same) return {};
    return fail(Code::kCorrupt, "not what was put");
  }
  Result<> times();
  Result<> conditions();
  Result<> large();
  Result<> replaced();
  Result<> lists();
  Result<> names();
  Result<> threads();

  ObjectStore& store_;
  int passed_ = 0, failed_ = 0;
};

Result<> Checks::small() {
  OFFPRINT_TRY(put("small", "content"));
  OFFPRINT_TRY(has("small", "content"));
  OFFPRINT_TRY(has("small", "ent", 4));
  OFFPRINT_TRY(has("small", "", 7));
  OFFPRINT_TRY_ASSIGN(auto list, store_.list(""));
  OFFPRINT_TRY(equal(list.size() == 1 && list[0].key == "small" && list[0].size == 7));
  OFFPRINT_TRY(store_.remove({"small"}));
  return refused(store_.get("small"), Code::kNotFound);
}

Result<> Checks::times() {
  PutOptions options;
  options.timestamp_ms = 1'767'366'245'123;
  OFFPRINT_TRY_ASSIGN(ObjectInfo made, put("0000/times", "", options));
  OFFPRINT_TRY_ASSIGN(ObjectInfo info, store_.info("0000/times"));
  OFFPRINT_TRY(has("0000/times", ""));
  OFFPRINT_TRY(refused(store_.info("0000/absent"), Code::kNotFound));
  return equal(info.timestamp_ms == options.timestamp_ms && info.size == 0 &&
               info.version == made.version && !info.version.empty());
}

Result<> Checks::conditions() {
  PutOptions absent, version;
  absent.if_absent = true;
  OFFPRINT_TRY_ASSIGN(ObjectInfo first, put("lease", "one", absent));
  OFFPRINT_TRY(refused(put("lease", "two", absent), Code::kConflict));
  version.if_version = first.version;
  OFFPRINT_TRY(put("lease", "two", version));
  OFFPRINT_TRY(refused(put("lease", "three", version), Code::kConflict));
  OFFPRINT_TRY(refused(put("no-lease", "x", version), Code::kConflict));
  return has("lease", "two");
}

Result<> Checks::large() {
  std::string content = pattern(40 << 20);
  PutOptions options;
  options.timestamp_ms = 1'767'366'245'000;
  OFFPRINT_TRY_ASSIGN(ObjectInfo made, put("large", content, options));
  OFFPRINT_TRY_ASSIGN(ObjectInfo info, store_.info("large"));
  OFFPRINT_TRY(equal(info.size == content.size() && info.version == made.version &&
                     info.timestamp_ms == options.timestamp_ms));
  OFFPRINT_TRY(has("large", content));
  return has("large", std::string_view(content).substr(17'000'001), 17'000'001);
}

Result<> Checks::replaced() {
  std::string content = pattern(30 << 20);
  OFFPRINT_TRY(put("replaced", content));
  OFFPRINT_TRY_ASSIGN(auto source, store_.get("replaced"));
  OFFPRINT_TRY(put("replaced", std::string(30 << 20, 'x')));
  // What was under way when it was replaced may come to its end; no byte of the other may come.
  Bytes all(content.size());
  return refused(source->read(all), Code::kConflict);
}

Result<> Checks::lists() {
  std::vector<std::string> keys;
  for (int i = 0; i < 1'005; ++i) keys.push_back(fmt::format("many/{:04}", i));
  for (const std::string& key : keys) OFFPRINT_TRY(put(key, key));
  OFFPRINT_TRY_ASSIGN(auto list, store_.list("many/"));
  OFFPRINT_TRY(equal(std::ranges::equal(list, keys, {}, &ObjectInfo::key)));
  OFFPRINT_TRY_ASSIGN(auto some, store_.list("many/000"));
  OFFPRINT_TRY(equal(some.size() == 10 && some[9].size == 9));
  OFFPRINT_TRY(store_.remove(keys));
  OFFPRINT_TRY_ASSIGN(auto none, store_.list("many/"));
  return equal(none.empty());
}

Result<> Checks::names() {
  for (const char* key : {"a/b@c~d_e-f.g", "a/.hidden", "a/..x"}) {
    OFFPRINT_TRY(put(key, key));
    OFFPRINT_TRY(has(key, key));
  }
  OFFPRINT_TRY_ASSIGN(auto list, store_.list("a/b@c~d"));
  OFFPRINT_TRY(equal(list.size() == 1 && list[0].key == "a/b@c~d_e-f.g"));
  return store_.remove({"a/b@c~d_e-f.g", "a/.hidden", "a/..x"});
}

Result<> Checks::threads() {
  // Keeps the folder: versitygw loses or refuses an object whose folder another request removes.
  OFFPRINT_TRY(put("threads/keep", ""));
  std::vector<Result<>> results(4);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&, i] {
      results[i] = [&]() -> Result<> {
        for (int j = 0; j < 20; ++j) {
          std::string key = fmt::format("threads/{}-{}", i, j);
          OFFPRINT_TRY(put(key, key));
          OFFPRINT_TRY(has(key, key));
          OFFPRINT_TRY(store_.remove({key}));
        }
        return {};
      }();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Result<>& result : results) OFFPRINT_TRY(result);
  return store_.remove({"threads/keep"});
}

void Checks::all() {
  check("put, get, list, remove", small());
  check("times and versions", times());
  check("conditional writes", conditions());
  check("40 MiB in parts", large());
  check("replaced while it is read", replaced());
  check("long lists, removal in batches", lists());
  check("names", names());
  check("threads", threads());
  Result<> gone = [&]() -> Result<> {
    OFFPRINT_TRY_ASSIGN(auto left, store_.list(""));
    std::vector<std::string> keys;
    for (const ObjectInfo& each : left) keys.push_back(each.key);
    OFFPRINT_TRY(store_.remove(keys));
    OFFPRINT_TRY_ASSIGN(auto none, store_.list(""));
    return equal(none.empty());
  }();
  check("all is removed", gone);
}

int run(const std::vector<std::string>& args) {
  if (args.size() < 2) {
    fmt::print(stderr, "{}", kUsage);
    return 2;
  }
  auto store = open_object_store(args[1]);
  if (!store) {
    fmt::print("FAILED {}\n", store.error().message());
    return 1;
  }
  Checks checks(**store);
  auto done = [](const Result<>& result) {
    if (!result) fmt::print("FAILED {}\n", result.error().message());
    return result ? 0 : 1;
  };
  if (args[0] == "all") {
    checks.all();
    return checks.report();
  }
  if (args[0] == "small") return done(checks.small());
  if (args[0] == "fails" && args.size() == 3) {
    auto made = checks.put("k", "x");
    if (made) return done(fail(Code::kInternal, "was accepted"));
    fmt::print("{}\n", made.error().message());
    return code_name(made.error().code()) == args[2] ? 0 : 1;
  }
  if (args[0] == "put" && args.size() == 5) {
    PutOptions options;
    options.timestamp_ms = std::stoll(args[4]);
    auto made = checks.put(args[2], pattern(std::stoull(args[3])), options);
    return done(made ? Result<>() : Result<>(std::unexpected(made.error())));
  }
  if (args[0] == "cat" && args.size() == 3) {
    auto content = read_object(**store, args[2], 1 << 30);
    if (!content) return done(fail(content.error()));
    std::fwrite(content->data(), 1, content->size(), stdout);
    return 0;
  }
  fmt::print(stderr, "{}", kUsage);
  return 2;
}

}  // namespace
}  // namespace offprint::archive

int main(int argc, char** argv) { return offprint::archive::run({argv + 1, argv + argc}); }
