#include "server/metrics.h"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>

#include "base/clock.h"
#include "publication/publications.h"
#include "server/authenticator.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

void append_metric(std::string& to, std::string_view name, std::string_view type,
                   std::string_view help, std::uint64_t value) {
  to += "# HELP offprint_";
  to += name;
  to += ' ';
  to += help;
  to += "\n# TYPE offprint_";
  to += name;
  to += ' ';
  to += type;
  to += "\noffprint_";
  to += name;
  to += ' ';
  append_unsigned(to, value);
  to += '\n';
}

void append_times(std::string& to, const database::StatementSums& sums) {
  to +=
      "# HELP offprint_statement_seconds Time of statements in SQLite.\n"
      "# TYPE offprint_statement_seconds histogram\n";
  std::uint64_t up_to = 0;
  for (std::size_t i = 0; i < sums.kBucketSeconds.size(); ++i) {
    up_to += sums.by_time[i];
    to += fmt::format("offprint_statement_seconds_bucket{{le=\"{}\"}} {}\n", sums.kBucketSeconds[i],
                      up_to);
  }
  to += fmt::format(
      "offprint_statement_seconds_bucket{{le=\"+Inf\"}} {0}\noffprint_statement_seconds_sum "
      "{1:.6f}\noffprint_statement_seconds_count {0}\n",
      sums.count(), static_cast<double>(sums.time_ns) / 1e9);
}

// The page as it grows.
class Page {
 public:
  void gauge(std::string_view name, std::string_view help, std::uint64_t value) {
    append_metric(text, name, "gauge", help, value);
  }
  void counter(std::string_view name, std::string_view help, std::uint64_t value) {
    append_metric(text, name, "counter", help, value);
  }
  std::string text;
};

void append_store(Page& page, const database::StoreMetrics& store) {
  page.gauge("databases", "Databases in the catalog.", store.databases);
  page.gauge("databases_open", "Databases whose files are open.", store.open_databases);
  page.counter("requests_read_total", "Requests that only read.", store.requests_read);
  page.counter("requests_write_total", "Requests that went through a writer queue.",
               store.requests_write);
  page.counter("batches_total", "SQLite transactions that carried requests.", store.batches);
  page.counter("transactions_total", "Transactions committed.", store.transactions);
  page.counter("rejected_total", "Requests of which nothing happened.", store.rejected);
  page.counter("offenders_total", "Requests that ended a shared transaction and ran again alone.",
               store.offenders);
  page.counter("journal_syncs_total", "fdatasync calls on the journal.", store.journal_syncs);
  page.counter("journal_bytes_total", "Bytes appended to the journal, without large payloads.",
               store.journal_bytes);
  page.gauge("journal_disk_bytes", "Size of the journal's segments, with the prepared ones.",
             store.journal_disk_bytes);
  page.counter("checkpoints_total", "Checkpoints of databases.", store.checkpoints);
  page.counter("recoveries_total", "Databases recovered from the journal.", store.recoveries);
  page.gauge("queue_length", "Requests waiting for a writer.", store.queue_length);
  page.counter("statements_total", "Statements that ran.", store.statements.count());
  append_times(page.text, store.statements);
  page.counter("rows_read_total", "Rows that statements read, an estimate.",
               store.statements.rows_read);
  page.counter("rows_written_total", "Rows that statements wrote.", store.statements.rows_written);
  page.counter("slow_statements_total", "Statements that took --slow-ms or longer.",
               store.statements.slow);
}

void append_follower(Page& page, const replica::NodeFollower::Status& follower) {
  page.gauge("follower_connected", "1: the stream of the followed node is open.",
             follower.connected);
  page.gauge("follower_databases", "Databases on that stream.", follower.databases);
  page.counter("follower_transactions_total", "Transactions applied to copies.",
               follower.transactions);
  page.counter("follower_bytes_total", "Bytes of these transactions.", follower.bytes);
  page.counter("follower_copies_total", "Snapshots and differences taken.", follower.copies);
  page.gauge("follower_waiting_bytes", "Received and not applied yet.", follower.waiting_bytes);
  page.gauge("follower_silence_ms", "Since anything came from the followed node.",
             static_cast<std::uint64_t>(follower.heard_ms_ago));
}

void append_archive(Page& page, const archive::Archiver::Status& archive) {
  page.gauge("archive_databases_behind", "Databases with transactions that are not in the archive.",
             archive.behind);
  page.gauge("archive_lag_ms", "How long the oldest of these transactions waits.",
             static_cast<std::uint64_t>(archive.lag_ms));
  page.counter("archive_puts_total", "Objects put into the archive.", archive.puts);
  page.counter("archive_bytes_total", "Bytes of these objects.", archive.bytes);
  page.counter("archive_failures_total", "Attempts to archive a database that failed.",
               archive.failures);
}

void append_instances(Page& page, const publication::Publications::Totals& totals) {
  page.gauge("instances", "Instances of publications that are kept up.", totals.instances);
  page.gauge("instances_stale", "Of them, those that a change did not reach yet.", totals.stale);
  page.gauge("instances_stopped",
             "Of them, those that would go beyond their quota, and have stopped.", totals.stopped);
  page.counter("instances_let_go", "Instances that nobody used and that are kept up no more.",
               totals.let_go);
  page.counter("instances_dropped", "Of them, those whose files went, too.", totals.dropped);
}

void append_tails(Page& page, const std::vector<tail::TailStatus>& tails) {
  tail::TailStatus sum;
  std::uint64_t following = 0, failing = 0, behind = 0;
  std::int64_t oldest_ms = 0;
  const std::int64_t now_ms = unix_time_ms();
  for (const tail::TailStatus& each : tails) {
    following += each.state == tail::TailState::kFollowing;
    failing += each.state == tail::TailState::kFailed;
    behind += each.behind_since_ms != 0;
    if (each.behind_since_ms != 0) oldest_ms = std::max(oldest_ms, now_ms - each.behind_since_ms);
    sum.transactions += each.transactions;
    sum.comparisons += each.comparisons;
    sum.failures += each.failures;
    sum.restarts += each.restarts;
    sum.lineages += each.lineages;
    sum.wal_bytes += each.wal_bytes;
  }
  page.gauge("tail_files", "Files that databases follow (--tail).", tails.size());
  page.gauge("tail_following", "Of them, those whose databases follow now.", following);
  page.gauge("tail_failing", "Of them, those that cannot be followed; the log says why.", failing);
  page.gauge("tail_behind", "Of them, those with changes that the database does not have.", behind);
  page.gauge("tail_lag_ms", "How long the oldest of these changes waits.",
             static_cast<std::uint64_t>(oldest_ms));
  page.counter("tail_transactions_total", "Transactions taken from files.", sum.transactions);
  page.counter("tail_comparisons_total", "Times a file was read as a whole.", sum.comparisons);
  page.counter("tail_failures_total", "Attempts that failed.", sum.failures);
  page.counter("tail_wal_restarts_total", "Times writers waited so that a -wal can begin anew.",
               sum.restarts);
  page.counter("tail_lineages_total", "Times a file was found to be another database.",
               sum.lineages);
  page.gauge("tail_wal_bytes", "Size of the -wal files, as they were last seen.", sum.wal_bytes);
}

void append_proofs(Page& page, const archive::Prover::Status& proofs) {
  page.gauge("archive_proof_age_ms", "Age of the oldest proof that a database's archive is sound.",
             static_cast<std::uint64_t>(proofs.oldest_ms));
  page.gauge("archive_unproven", "Databases whose archive was never proven, or is damaged.",
             proofs.unproven);
  page.counter("archive_proofs_total", "Archives of databases that were proven.", proofs.proofs);
  page.counter("archive_damages_total", "Objects and moments of archives that were found damaged.",
               proofs.damages);
  page.counter("archive_repairs_total", "Archives of databases that were repaired.",
               proofs.repairs);
}

void append_http(Page& page, const HttpCounters& http) {
  page.counter("http_requests_total", "HTTP requests.", http.requests);
  page.counter("http_responses_4xx_total", "Answers with a status from 400 to 499.",
               http.responses_4xx);
  page.counter("http_responses_5xx_total", "Answers with a status from 500 on.",
               http.responses_5xx);
  page.counter("http_received_bytes_total", "Bytes received from clients.", http.bytes_in);
  page.counter("http_sent_bytes_total", "Bytes sent to clients.", http.bytes_out);
  page.counter("http_connections_total", "Connections accepted.", http.accepted);
  page.counter("http_connections_refused_total", "Connections refused because there were too many.",
               http.refused);
  page.counter("http_timeouts_total", "Connections closed because a client was too slow.",
               http.timeouts);
  page.gauge("http_connections", "Connections open.", http.connections);
  page.gauge("http_streams", "Answers being streamed.", http.streams_open);
}

void append_feeds(Page& page, feed::Feeds& feeds) {
  feed::FeedShared& shared = feeds.shared();
  page.gauge("feeds", "Databases whose changes somebody listens to.", feeds.count());
  page.gauge("feed_bytes", "Memory of transactions that listeners wait for.", *shared.bytes);
  page.counter("feed_transactions_total", "Transactions read for listeners.", shared.transactions);
  page.counter("live_query_runs_total", "Runs of live queries.", shared.live_runs);
}

}  // namespace

std::string metrics_text(Service& service) {
  Page page;
  append_store(page, service.store.metrics());
  page.gauge("client_streams_pinned", "Client streams with an open transaction or stored SQL.",
             service.streams.pinned_count());
  append_feeds(page, service.feeds);
  if (service.follower_status) append_follower(page, service.follower_status());
  if (service.tails) append_tails(page, service.tails());
  if (service.publications != nullptr) append_instances(page, service.publications->totals());
  if (service.archive_status) append_archive(page, service.archive_status());
  if (service.prover_status) append_proofs(page, service.prover_status());
  if (service.authenticator != nullptr) {
    page.gauge("tokens_cached", "Tokens that were verified and are remembered.",
               service.authenticator->cached_count());
    page.counter("tokens_refused_total", "Requests without a token that counts.",
                 service.authenticator->refused_count());
  }
  if (service.http_counters) append_http(page, service.http_counters());
  return std::move(page.text);
}

}  // namespace offprint::server
