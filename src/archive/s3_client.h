#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "archive/s3_settings.h"
#include "archive/s3_signature.h"
#include "archive/s3_transport.h"
#include "base/clock.h"
#include "base/result.h"

namespace offprint::archive {

struct S3Options {
  // Pauses between tries: at random up to a bound that doubles.
  int retry_first_ms = 50;
  int retry_max_ms = 5'000;
  int retry_total_ms = 30'000;  // from the first failure; after it a call gives up
  int connect_timeout_ms = 10'000;
  int stall_seconds = 20;             // a transfer without a byte for so long is tried again
  std::size_t range_bytes = 4 << 20;  // of a download at a time
  std::size_t ranges = 3;             // of a download in flight
  std::size_t part_bytes = 16 << 20;  // of a large upload at a time
  std::size_t parts = 2;              // of a large upload in flight
  std::size_t list_page = 1000;
};

struct S3Request {
  std::string method;
  std::string key;  // with the prefix; empty: the bucket
  Pairs query;
  Pairs headers;  // lower-case names
  ByteView body;
  std::size_t answer_max = 1 << 20;
  int stall_seconds = 0;                    // 0: as the options say
  bool can_fail_late = false;               // status 200 may come with an error in the body
  const std::atomic<bool>* stop = nullptr;  // ends this call alone, within a moment
};

// What a service said at last. A status that is no success comes with the service's reason.
struct S3Answer {
  int status = 0;
  HttpAnswer http;
  std::string code, message;  // of an error
  int tries = 1;              // more than one: an earlier one may have been carried out

  bool ok() const { return status >= 200 && status < 300; }
};

// How long a call tries: for a time from the first failure on, since what went well may have taken
// long, and three times at least.
class S3Patience {
 public:
  explicit S3Patience(const S3Options& options) : options_(options) {}
  // After a failure: waits and answers true, or false: it is enough, or all is cancelled.
  bool wait(HttpTransport& transport, const std::atomic<bool>* stop = nullptr);
  // Something came: from now on as at first.
  void renew() { failures_ = 0; }

 private:
  const S3Options& options_;
  int failures_ = 0;
  Deadline deadline_;
  int bound_ms_ = 0;
};

// Signed requests to one bucket, with what needs no decision of the caller: tries after temporary
// failures, another region, a clock that is wrong, credentials that were changed. Thread: any.
class S3Client {
 public:
  // kInvalid: no credentials.
  static Result<std::unique_ptr<S3Client>> create(S3Settings settings, S3Environment environment,
                                                  S3Options options);

  // The answer, whatever it is, unless it is temporary. kUnavailable: after all tries, or
  // cancelled; kCorrupt: the answer is longer than `answer_max`.
  Result<S3Answer> call(const S3Request& request);
  // One try. `again`: the failure is temporary.
  S3Answer try_once(const S3Request& request, bool& again);
  // The failure that an answer of try_once() or call() is.
  Error error_of(const S3Request& request, const S3Answer& answer) const;

  const S3Settings& settings() const { return settings_; }
  const S3Options& options() const { return options_; }
  HttpTransport& transport() { return *transport_; }

 private:
  S3Client(S3Settings settings, S3Environment environment, S3Options options,
           std::unique_ptr<HttpTransport> transport, S3Credentials credentials);
  struct Knowledge {
    S3Credentials credentials;
    std::string region;
    std::int64_t clock_offset_ms = 0;  // theirs less ours
  };
  Knowledge knowledge();
  S3Answer send(const S3Request& request, const Knowledge& known);
  // Whether the answer told something that makes another try worth it.
  bool learn(const S3Answer& answer, const Knowledge& used);

  const S3Settings settings_;
  const S3Environment environment_;
  const S3Options options_;
  const std::unique_ptr<HttpTransport> transport_;
  std::mutex mutex_;
  Knowledge known_;
};

// Unix time of an HTTP date; 0: it is none.
std::int64_t http_date_ms(const std::string& text);

}  // namespace offprint::archive
