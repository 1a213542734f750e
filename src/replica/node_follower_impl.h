#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "replica/copy_repairs.h"
#include "replica/followed_set.h"
#include "replica/http_client.h"
#include "replica/name_queue.h"
#include "replica/node_feed.h"
#include "replica/node_follower.h"
#include "replica/stream_format.h"

namespace offprint::replica {

// What NodeFollower and InstanceFollower are. node_follower.cc: connections, and what is known;
// node_follower_frames.cc: what comes, and what the store makes of it.
class NodeFollowerImpl final : public NodeFollower {
 public:
  NodeFollowerImpl(NodeFollowerOptions options, database::Store& store, FollowedSet& followed,
                   std::unique_ptr<HttpClient> http);
  ~NodeFollowerImpl() override { stop(); }

  void start() override;
  void stop() override;
  // Connects again, soon: what is followed has changed. Thread: any.
  void follow_anew() { complete({.of = Completion::Of::kAnew}); }

  std::int64_t age_ms(const database::DatabaseName& name) const override;
  Status status() const override;

 private:
  void run();
  void wait_for_something();
  void pause(const Error& error);
  Result<> session(const std::string& body);
  Result<> send_request(const std::string& body);
  Result<> read_answer();
  bool is_to_follow_anew() const;
  Result<> take_received();
  Result<> handle(const Frame& frame);
  Result<> handle(Feed& feed, const Frame& frame);
  Result<> on_database(const Frame& frame);
  void on_position(Feed& feed, const StreamPosition& position, bool is_start);
  void note_source(Feed& feed, TxId at);
  Result<> on_transaction(Feed& feed, const Frame& frame);
  Result<> on_snapshot_begin(Feed& feed, const Frame& frame);
  void on_snapshot_end(Feed& feed, std::uint32_t number);
  Result<> on_end(Feed& feed, const Frame& frame);
  void submit(std::uint32_t number);
  void drop_if_idle(Feed& feed);
  Result<> take_completions();
  Result<> finish(const Completion& completion);
  void complete(Completion completion);
  void settle();
  void drop(const database::DatabaseName& name, const Lineage& lineage);
  void repair(Feed& feed, const std::string& why);
  bool repair_stopped(Feed& feed);
  void note_fresh(const database::DatabaseName& name, std::int64_t at_ms);

  const NodeFollowerOptions options_;
  database::Store& store_;
  FollowedSet& followed_;
  const std::unique_ptr<HttpClient> http_;
  CopyRepairs repairs_;
  NameQueue lives_{store_};  // ends and beginnings of databases, which must not pass each other
  std::atomic<bool> stop_{false};
  std::int64_t started_ms_ = 0;
  std::thread thread_;

  // Of the follower's thread.
  int failures_ = 0;
  FrameReader frames_;
  std::vector<Feed> feeds_;  // by number
  std::vector<std::uint32_t> touched_;
  std::string refusal_;
  bool connect_again_ = false;
  std::optional<Deadline> anew_at_;       // what is followed has changed
  Deadline began_at_{};                   // this session
  std::optional<Deadline> reconnect_at_;  // for feeds that ended with an error
  int feed_retry_ms_ = 0;
  Deadline greeted_at_{};
  std::size_t busy_ = 0;           // feeds that the store works for
  std::size_t waiting_bytes_ = 0;  // of transactions not applied yet
  Deadline heard_at_{};
  std::uint64_t spool_number_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Completion> completed_;  // guarded by mutex_

  mutable std::shared_mutex status_mutex_;
  std::unordered_map<std::string, std::int64_t> fresh_at_ms_;  // guarded by status_mutex_
  Status status_;                                              // guarded by status_mutex_
  std::int64_t heard_at_ms_ = 0;                               // guarded by status_mutex_

  std::unique_ptr<database::Subscription> stopped_;  // calls complete()
};

}  // namespace offprint::replica
