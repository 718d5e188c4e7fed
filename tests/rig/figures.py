"""What the figures of `scripts/bench` are, as its --help tells."""

FIGURES = """\
what the figures are:
  lost      acknowledged commits that the serving side does not hold: `planned` by a planned change, `unshipped` with
            a primary that died and found in what was isolated, `unexplained` neither
blocked, for each of `sizes`:
  size_gb                nearly what a full send ships: random text, six bits a byte, compressed nowhere
  snaprep_blocked_s      median over --runs rebuilds (one of an empty host, then of an outdated one) of the longest time
                         between two acknowledged commits that any one writer had at the cutover; attempts that were
                         undone and retried are added
  snaprep_blocked_max_s  the worst of them
  documented_blocked_s   the same of Derby's documented procedure: server shut down, the whole database copied by
                         tar | ssh (aes128-gcm), startSlave, startMaster, clients let in again
  ratio                  documented_blocked_s over snaprep_blocked_s
  refused                why snaprep gave a rebuild up, so that it had to be begun again
  growth                 (of the whole) snaprep_blocked_s at the last size over that at the first
plane:
  ratio_median           median of the pairs' ratios: bytes per second of a full send through snaprep, hashed at both
                         ends, over that of `zfs send | ssh -c aes128-gcm@openssh.com | zfs receive`, in turn, of one
                         dataset over one link; from the start of the send to the end of the receive, for the
                         command with its handshake (snaprep opens its connections ahead)
  cpu_s_per_gib          CPU seconds of all that runs on both hosts and at the operator's, for each GiB
round:
  snaprep_s, by_hand_s   median of a round with nothing written: snapshot, send, receive, GUID read back; by hand in a
                         shell on the source with one held ssh ControlMaster
  steps_ms               what each step of snaprep's rounds took on its host
failback:
  ratio, full_ratio      bytes on the wire of a whole fail-back, while --commits go on, over those of the one
                         `zfs send -i base final`, and over those of a full send
rtt:
  near_blocked_s, far_blocked_s
                         what clients waited at the cutovers of --runs rebuilds each, in turn with an operator nearby
                         and with one whose every round trip takes --rtt ms more
  growth_s               far minus near, of the medians
follow, source and target on a core each throughout:
  p999_commit_ratio      99.9th percentile of the time that a transaction took, with a fed replica over without, of
                         --runs legs of --seconds each, in turn, at --commits
  p999_commit_ms, p50_commit_ms, blocked_s
                         the times themselves; the longest time without a commit that any writer had, by leg
  replay_mib_s, written_mib_s, replay_over_written
                         log sent to a replica that had been away, from the beginning of its feed, its boot counted
                         in, until it was less than a second behind; and log that clients wrote, as fast as they could,
                         while it was away; they went on while it caught up
  behind_mib             how far behind it was when it began
lzc:
  snapshot_ratio         median time of the zfs command over the library's, for one atomic snapshot of 20 datasets and a
                         hold on each; on an emulated machine a process costs ten times as much as elsewhere
  decode_ratio           pyzfs's time over snaprep's, for an nvlist of 10,000 snapshots with three properties each
"""
