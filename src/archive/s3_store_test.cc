#include "archive/s3_store.h"

#include "archive/chain.h"
#include "archive/s3_store_testing.h"

namespace offprint::archive {
namespace {

TEST_F(S3StoreTest, PutInfoGetListRemove) {
  EXPECT_EQ(store_->url(), "s3://b/p");
  EXPECT_EQ(store_->level_prefix(0), "0000/");
  EXPECT_EQ(store_->level_prefix(9), "0009/");
  auto made = put("0000/a~1@x.ltx", "content", at(1'767'366'245'123));
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->size, 7U);
  EXPECT_FALSE(made->version.empty());
  auto objects = server_.objects();
  ASSERT_TRUE(objects.contains("/b/p/0000/a~1@x.ltx"));
  EXPECT_EQ(objects["/b/p/0000/a~1@x.ltx"].metadata["x-amz-meta-litestream-timestamp"],
            "2026-01-02T15:04:05.123Z");
  auto info = store_->info("0000/a~1@x.ltx");
  ASSERT_TRUE(info) << info.error().message();
  EXPECT_EQ(info->timestamp_ms, 1'767'366'245'123);
  EXPECT_EQ(info->size, 7U);
  EXPECT_EQ(info->version, made->version);
  EXPECT_EQ(*get("0000/a~1@x.ltx"), "content");
  EXPECT_EQ(*get("0000/a~1@x.ltx", 4), "ent");
  EXPECT_EQ(*get("0000/a~1@x.ltx", 7), "");
  auto list = store_->list("0000/");
  ASSERT_TRUE(list) << list.error().message();
  ASSERT_EQ(list->size(), 1U);
  EXPECT_EQ((*list)[0].key, "0000/a~1@x.ltx");
  EXPECT_EQ((*list)[0].size, 7U);
  EXPECT_EQ((*list)[0].timestamp_ms, 0);
  ASSERT_TRUE(store_->remove({"0000/a~1@x.ltx", "absent"}));
  EXPECT_TRUE(server_.objects().empty());
  EXPECT_EQ(server_.connections(), 1);
}

TEST_F(S3StoreTest, EmptyObject) {
  ASSERT_TRUE(put("empty", ""));
  EXPECT_EQ(*get("empty"), "");
  EXPECT_EQ(store_->info("empty")->size, 0U);
}

TEST_F(S3StoreTest, AbsentObject) {
  expect_fails(get("no"), Code::kNotFound, "GET s3://b/p/no: NoSuchKey: said so (HTTP 404)");
  expect_fails(store_->info("no"), Code::kNotFound, "no such object");
  EXPECT_TRUE(store_->remove({"no"}));
  EXPECT_TRUE(store_->list("no")->empty());
}

TEST_F(S3StoreTest, ErrorsAreToldApart) {
  struct Case {
    int status;
    const char* said;
    Code code;
  };
  for (const Case& each :
       {Case{404, "NoSuchBucket", Code::kNotFound}, Case{403, "AccessDenied", Code::kForbidden},
        Case{403, "InvalidAccessKeyId", Code::kUnauthorized},
        Case{403, "SignatureDoesNotMatch", Code::kUnauthorized},
        Case{400, "ExpiredToken", Code::kUnauthorized}, Case{507, "Whatever", Code::kFull},
        Case{403, "QuotaExceeded", Code::kFull}, Case{400, "InvalidArgument", Code::kUnavailable},
        Case{405, "MethodNotAllowed", Code::kUnavailable}}) {
    int before = static_cast<int>(server_.requests().size());
    server_.set_hook([&](const FakeRequest&) { return FakeReply::error(each.status, each.said); });
    expect_fails(put("k", "x"), each.code, std::string("PUT s3://b/p/k: ") + each.said);
    EXPECT_EQ(static_cast<int>(server_.requests().size()), before + 1) << each.said;
    if (each.status == 404 || each.code == Code::kForbidden)
      expect_fails(store_->list(""), each.code, each.said);
  }
}

TEST_F(S3StoreTest, TemporaryErrorsAreTriedAgain) {
  for (const FakeReply& reply :
       {FakeReply::error(500, "InternalError"), FakeReply::error(503, "SlowDown"),
        FakeReply::error(429, "TooManyRequests"), FakeReply::error(400, "RequestTimeout"),
        FakeReply{502, {}, "<html>bad gateway"}}) {
    answer_first(2, "PUT", reply);
    auto made = put("k", "x");
    EXPECT_TRUE(made) << made.error().message();
  }
  EXPECT_EQ(server_.count("PUT"), 15);
}

TEST_F(S3StoreTest, GivesUpInTheEnd) {
  options_.retry_total_ms = 20;
  open();
  answer_first(1 << 20, "PUT", FakeReply::error(503, "SlowDown"));
  expect_fails(put("k", "x"), Code::kUnavailable, "SlowDown: said so (HTTP 503)");
  EXPECT_GT(server_.count("PUT"), 2);
}

TEST_F(S3StoreTest, NobodyListens) {
  options_.retry_total_ms = 20;
  open();
  variables_["AWS_ENDPOINT_URL"] = "";
  S3Environment environment{[this](const char* name) { return variables_[name]; },
                            &FileSystem::real()};
  auto store = open_s3_store("s3://b/p?endpoint=http://127.0.0.1:1", environment, options_);
  ASSERT_TRUE(store);
  expect_fails((*store)->info("k"), Code::kUnavailable, "HEAD s3://b/p/k");
}

TEST_F(S3StoreTest, SecretsThatAServiceRepeatsAreNotShown) {
  server_.set_hook([&](const FakeRequest&) {
    return FakeReply{403,
                     {},
                     std::string("<Error><Code>AccessDenied</Code><Message>key ") + kSecret +
                         "</Message></Error>"};
  });
  expect_fails(put("k", "x"), Code::kForbidden, "AccessDenied");
}

// --- reading -------------------------------------------------------------------------------------

TEST_F(S3StoreTest, LargeObjectsComeInRanges) {
  std::string content = text_of(98'765);
  server_.add("/b/p/large", content);
  EXPECT_EQ(*get("large"), content);
  EXPECT_EQ(*get("large", 50'001), content.substr(50'001));
  EXPECT_EQ(*get("large", 98'765), "");
  EXPECT_EQ(*get("large", 1'000'000), "");
  std::string etag = server_.objects()["/b/p/large"].etag;
  int first = 0;
  for (const FakeRequest& each : server_.requests()) {
    EXPECT_LE(each.header("range").size(), std::string("bytes=98000-98999").size() + 4);
    if (each.header("if-match").empty()) {
      ++first;
    } else {
      EXPECT_EQ(each.header("if-match"), etag);
    }
  }
  EXPECT_EQ(first, 4);
}

TEST_F(S3StoreTest, BrokenBodiesAreResumed) {
  std::string content = text_of(5'500);
  server_.add("/b/p/k", content);
  std::atomic<int> resets{0};
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    FakeReply reply = server_.serve(request);
    if (reply.body.size() > 100) {
      reply.cut_after = 100;
      ++resets;
    }
    return reply;
  });
  EXPECT_EQ(*get("k"), content);
  EXPECT_GT(resets, 40);
  bool resumed = false;
  for (const FakeRequest& each : server_.requests())
    resumed = resumed || each.header("range") == "bytes=100-999";
  EXPECT_TRUE(resumed);
}

TEST_F(S3StoreTest, ShortBodiesAreNoticed) {
  std::string content = text_of(2'500);
  server_.add("/b/p/k", content);
  // No length: curl cannot know that something is missing.
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    FakeReply reply = server_.serve(request);
    reply.no_length = true;
    if (request.number % 2 == 1) reply.body.resize(reply.body.size() / 2);
    return reply;
  });
  EXPECT_EQ(*get("k"), content);
}

TEST_F(S3StoreTest, ReplacedWhileItIsRead) {
  server_.add("/b/p/k", text_of(50'000));
  auto source = store_->get("k");
  ASSERT_TRUE(source);
  server_.add("/b/p/k", text_of(49'000));
  Bytes all(50'000);
  expect_fails((*source)->read(all), Code::kConflict, "replaced while it was read");
}

TEST_F(S3StoreTest, ReaderThatTakesItsTime) {
  std::string content = text_of(40'000);
  server_.add("/b/p/k", content);
  auto source = store_->get("k");
  ASSERT_TRUE(source);
  // One, three under way and as many more ahead of it: no more are asked for before it reads.
  Bytes one(1);
  ASSERT_EQ(*(*source)->read(one), 1U);
  Bytes rest(40'000);
  ASSERT_EQ(*(*source)->read(rest), 39'999U);
  EXPECT_EQ(as_text(ByteView(rest).first(39'999)), content.substr(1));
  EXPECT_EQ(server_.count("GET"), 40);
}

TEST_F(S3StoreTest, SourceIsDroppedHalfRead) {
  server_.add("/b/p/k", text_of(90'000));
  auto source = store_->get("k");
  ASSERT_TRUE(source);
  source->reset();
  EXPECT_LT(server_.count("GET"), 12);
}

TEST_F(S3StoreTest, ServiceWithoutRanges) {
  server_.add("/b/p/small", "small one");
  server_.add("/b/p/large", text_of(5'000));
  server_.set_hook([&](FakeRequest request) -> std::optional<FakeReply> {
    request.headers.erase("range");
    return server_.serve(request);
  });
  EXPECT_EQ(*get("small"), "small one");
  EXPECT_EQ(*get("small", 6), "one");
  expect_fails(get("large"), Code::kCorrupt, "longer than expected");
}

TEST_F(S3StoreTest, AnotherRangeThanAskedFor) {
  server_.set_hook([&](const FakeRequest&) {
    return FakeReply{206, {{"Content-Range", "bytes 5-9/10"}, {"ETag", "x"}}, "01234"};
  });
  expect_fails(get("k"), Code::kCorrupt, "bytes 5-9/10");
}

TEST_F(S3StoreTest, SmallObjectIsRead) {
  server_.add("/b/p/k", "text");
  EXPECT_EQ(as_text(*read_object(*store_, "k", 10)), "text");
  expect_fails(read_object(*store_, "k", 3), Code::kTooLarge, "s3://b/p/k");
}

// --- writing -------------------------------------------------------------------------------------

TEST_F(S3StoreTest, ConditionsHold) {
  auto first = put("k", "one", if_absent());
  ASSERT_TRUE(first) << first.error().message();
  expect_fails(put("k", "two", if_absent()), Code::kConflict, "PreconditionFailed");
  auto second = put("k", "two", if_version(first->version));
  ASSERT_TRUE(second) << second.error().message();
  expect_fails(put("k", "three", if_version(first->version)), Code::kConflict,
               "PreconditionFailed");
  expect_fails(put("none", "x", if_version("\"x\"")), Code::kConflict, "NoSuchKey");
  EXPECT_EQ(*get("k"), "two");
}

TEST_F(S3StoreTest, ConflictWithAnotherUploadIsAConflict) {
  answer_first(1, "PUT", FakeReply::error(409, "ConditionalRequestConflict"));
  expect_fails(put("k", "x", if_absent()), Code::kConflict, "ConditionalRequestConflict");
}

// The first try was carried out and its answer lost: the second finds what stands in its way.
TEST_F(S3StoreTest, OwnWriteIsNoConflict) {
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.number != 1) return std::nullopt;
    (void)server_.serve(request);
    return FakeReply::error(500, "InternalError");
  });
  auto made = put("k", "mine", if_absent());
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->version, store_->info("k")->version);
  // Another's is.
  answer_first(1, "PUT", FakeReply::error(500, "InternalError"));
  expect_fails(put("k", "mine", if_absent()), Code::kConflict, "PreconditionFailed");
}

TEST_F(S3StoreTest, ServiceWithoutConditions) {
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.header("if-none-match").empty() && request.header("if-match").empty())
      return std::nullopt;
    return FakeReply::error(501, "NotImplemented");
  });
  auto first = put("k", "one", if_absent());
  ASSERT_TRUE(first) << first.error().message();
  expect_fails(put("k", "two", if_absent()), Code::kConflict, "is there already");
  expect_fails(put("k", "two", if_version("\"x\"")), Code::kConflict, "changed by somebody");
  auto second = put("k", "two", if_version(first->version));
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(*get("k"), "two");
}

TEST_F(S3StoreTest, LargeObjectsGoInParts) {
  options_.part_bytes = kSmallObjectMax;
  open();
  std::string content = text_of(2 * kSmallObjectMax + 12'345);
  auto made = put("k", content, at(1'000));
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->size, content.size());
  EXPECT_EQ(made->version, "\"whole-2\"");
  auto object = server_.objects()["/b/p/k"];
  EXPECT_TRUE(object.content == content);
  EXPECT_EQ(object.metadata["x-amz-meta-litestream-timestamp"], "1970-01-01T00:00:01.000Z");
  EXPECT_EQ(server_.count("PUT"), 3);
  expect_fails(put("k", content, if_absent()), Code::kTooLarge, "on a condition");
}

TEST_F(S3StoreTest, FailedPartsAreDropped) {
  std::string content = text_of(3 * kSmallObjectMax);
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.has("partNumber") && request.query.at("partNumber") == "2")
      return FakeReply::error(403, "AccessDenied");
    return std::nullopt;
  });
  expect_fails(put("k", content), Code::kForbidden, "AccessDenied");
  EXPECT_EQ(server_.requests().back().method, "DELETE");
  EXPECT_EQ(server_.parts_left(), 0U);
  EXPECT_TRUE(server_.objects().empty());
}

TEST_F(S3StoreTest, SourceThatFailsLeavesNothing) {
  class Source : public ltx::ByteSource {
   public:
    Result<std::size_t> read(std::span<std::uint8_t> to) override {
      if (++reads_ > 20) return fail(Code::kIo, "the disk");
      return to.size();
    }

   private:
    int reads_ = 0;
  } source;
  expect_fails(store_->put("k", source), Code::kIo, "the disk");
  EXPECT_EQ(server_.requests().back().method, "DELETE");
  EXPECT_TRUE(server_.objects().empty());
}

TEST_F(S3StoreTest, LateErrorOfACompletionIsTriedAgain) {
  std::atomic<int> completions{0};
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.method != "POST" || request.has("uploads") || ++completions > 1)
      return std::nullopt;
    return FakeReply{200, {}, "  \n <Error><Code>InternalError</Code></Error>"};
  });
  auto made = put("k", text_of(kSmallObjectMax + 1));
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(completions, 2);
}

TEST_F(S3StoreTest, LostAnswerOfACompletion) {
  std::atomic<int> completions{0};
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.method != "POST" || request.has("uploads")) return std::nullopt;
    if (++completions > 1) return FakeReply::error(404, "NoSuchUpload");
    FakeReply reply = server_.serve(request);
    reply.cut_after = 3;
    return reply;
  });
  auto made = put("k", text_of(kSmallObjectMax + 1));
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->version, "\"whole-2\"");
  EXPECT_EQ(completions, 2);
}

// --- lists and removal ---------------------------------------------------------------------------

TEST_F(S3StoreTest, ListsHavePages) {
  options_.list_page = 10;
  open();
  std::vector<std::string> keys;
  for (int i = 0; i < 35; ++i) {
    keys.push_back(fmt::format("0000/{:03} &+%<", i));
    server_.add("/b/p/" + keys.back(), "x");
  }
  server_.add("/b/p/0001/other", "x");
  server_.add("/b/other/0000/000", "x");
  auto list = store_->list("0000/");
  ASSERT_TRUE(list) << list.error().message();
  std::vector<std::string> found;
  for (const ObjectInfo& each : *list) found.push_back(each.key);
  EXPECT_EQ(found, keys);
  EXPECT_EQ(server_.count("GET"), 4);
}

// All levels in one request; other databases' and other names are left out.
TEST_F(S3StoreTest, AnArchiveIsListedAtOnce) {
  const std::string first = ltx::file_name(TxId{1}, TxId{1});
  const std::string both = ltx::file_name(TxId{1}, TxId{2});
  const std::vector<std::string> keys = {
      "a/0000/" + first, "a/0002/" + both,      "a/0009/" + both,
      "a/000a/" + both,  "a/0001/0001/" + both, "a/0001/notes",
      "a/1/" + both,     "a/offprint/history",  "ab/0000/" + first};
  for (const std::string& key : keys) server_.add("/b/p/" + key, "x");
  auto files = list_files(*store_, "a/");
  ASSERT_TRUE(files) << files.error().message();
  std::vector<std::string> found;
  for (const ArchivedFile& file : *files) found.push_back(file.key);
  EXPECT_THAT(found, testing::ElementsAre("a/0000/" + first, "a/0002/" + both, "a/0009/" + both));
  EXPECT_EQ(files->back().level, kSnapshotLevel);
  EXPECT_EQ(server_.count("GET"), 1);
}

TEST_F(S3StoreTest, ListsThatMakeNoSense) {
  for (const char* body :
       {"", "no xml", "<Other/>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><Contents><Key>p/x</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>q/x</Key><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents>"}) {
    server_.set_hook([&](const FakeRequest&) { return FakeReply{200, {}, body}; });
    expect_fails(store_->list("x"), Code::kCorrupt, "list s3://b/p/x");
  }
}

TEST_F(S3StoreTest, RemovalGoesInBatches) {
  std::vector<std::string> keys;
  for (int i = 0; i < 2'500; ++i) {
    keys.push_back(fmt::format("{:04}", i));
    server_.add("/b/p/" + keys.back(), "");
  }
  ASSERT_TRUE(store_->remove(keys));
  EXPECT_TRUE(server_.objects().empty());
  EXPECT_EQ(server_.count("POST"), 3);
  FakeRequest request = server_.requests().front();
  EXPECT_EQ(request.header("content-md5"), md5_base64(as_bytes(request.body)));
}

TEST_F(S3StoreTest, ServiceWithoutBatches) {
  for (const char* key : {"1", "2", "3"}) server_.add(std::string("/b/p/") + key, "");
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.method == "POST") return FakeReply::error(501, "NotImplemented");
    return std::nullopt;
  });
  ASSERT_TRUE(store_->remove({"1", "2"}));
  ASSERT_TRUE(store_->remove({"3", "4"}));
  EXPECT_TRUE(server_.objects().empty());
  EXPECT_EQ(server_.count("POST"), 1);
}

TEST_F(S3StoreTest, OneOfABatchIsRefused) {
  server_.set_hook([&](const FakeRequest& request) -> std::optional<FakeReply> {
    if (request.method == "DELETE") return FakeReply::error(403, "AccessDenied");
    return FakeReply{200,
                     {},
                     "<DeleteResult><Error><Key>p/2</Key><Code>AccessDenied</Code></Error>"
                     "</DeleteResult>"};
  });
  expect_fails(store_->remove({"1", "2"}), Code::kForbidden, "DELETE s3://b/p/2: AccessDenied");
}

TEST(S3Store, BadUrlsAreRefused) {
  for (const char* url : {"s3://", "s3://b?x=1", "s3://b?endpoint=nonsense"}) {
    auto store = open_object_store(url);
    ASSERT_FALSE(store) << url;
    EXPECT_EQ(store.error().code(), Code::kInvalid);
  }
}

}  // namespace
}  // namespace offprint::archive
