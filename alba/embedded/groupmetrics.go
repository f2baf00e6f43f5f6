package embedded

import (
	"strconv"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics of a group, as the member in this process sees it.
var (
	descGroupApplied   = desc("group_applied_total", "Entries applied by an Arakoon group.", "group")
	descGroupSyncs     = desc("group_log_syncs_total", "Syncs of a group's log.", "group")
	descGroupProposals = desc("group_proposals", "Proposals to a group under way.", "group")
	descGroupBytes     = desc("group_proposal_bytes", "Bytes of proposals under way.", "group")
	descGroupReads     = desc("group_reads", "Reads of a group that wait.", "group")
	descGroupFull      = desc("group_full", "1 if the group waits for room, or for what else its disk needs.", "group")

	descGroupFailed   = desc("group_failed", "1 if the member here has failed, and is to be opened anew.", "group")
	descGroupFailures = desc("group_failures_total", "Failures of the member here since the start.", "group")

	descGroupProposalTime = desc("group_proposal_seconds", "How long proposals took, from their admission to their answer.", "group")
	descGroupStoreTime    = desc("group_log_store_seconds", "How long it took to store in the log, each time with one write and one sync.", "group")
	descGroupApplyTime    = desc("group_apply_seconds", "How long it took to apply what was committed.", "group")

	descGroupLeads     = desc("group_leads", "1 if this process has the member that leads the group.", "group")
	descGroupTerm      = desc("group_term", "Raft's term.", "group")
	descGroupStuck     = desc("group_obstacle", "1 if something is known to keep writes from going on.", "group")
	descGroupElections = desc("group_elections_total", "Elections that the member stood in.", "group")
	descGroupChanges   = desc("group_leader_changes_total", "Changes of who leads.", "group")
	descGroupLag       = desc("group_member_lag", "Entries of what is committed that a member lacks, told where the group is led.", "group", "member")
	descGroupHeard     = desc("group_member_active", "1 if a member was heard from lately, told where the group is led.", "group", "member")

	descGroupLogBytes   = desc("group_log_bytes", "Bytes of the log's files.", "group")
	descGroupStateBytes = desc("group_state_bytes", "Bytes of the state's files.", "group")
	descGroupWatchers   = desc("group_watchers", "Watches of keys, and waits for leases.", "group")
	descGroupSessions   = desc("group_sessions", "Sessions of clients.", "group")
	descGroupLeases     = desc("group_leases", "Leases that are held.", "group")
	descGroupSent       = desc("group_snapshots_sent_total", "Snapshots that other members were told of.", "group")
	descGroupTaken      = desc("group_snapshots_taken_total", "Snapshots of other members that took the place of the state.", "group")
)

// GroupCollector tells of an Arakoon group that is beside those of a Backend, while the process
// has a member of it.
type GroupCollector struct {
	Name string
	Of   *groups.Groups
}

// Describe implements prometheus.Collector.
func (g GroupCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g GroupCollector) Collect(ch chan<- prometheus.Metric) { collectGroup(ch, g.Name, g.Of) }

func collectGroup(s sink, name string, of *groups.Groups) {
	n := of.Node(name)
	if n == nil {
		return // its member went to another host
	}
	fate, failures := of.Fate(name)
	s.flag(descGroupFailed, fate.Failed != nil, name)
	s.count(descGroupFailures, failures, name)
	st := n.Stats()
	s.count(descGroupApplied, st.Applied, name)
	s.count(descGroupSyncs, st.Syncs, name)
	s.gauge(descGroupProposals, float64(st.Proposals), name)
	s.gauge(descGroupBytes, float64(st.ProposalBytes), name)
	s.gauge(descGroupReads, float64(st.Reads), name)
	s.flag(descGroupFull, st.Full, name)
	f := n.Figures()
	s.histogram(descGroupProposalTime, f.Proposals, name)
	s.histogram(descGroupStoreTime, f.Stores, name)
	s.histogram(descGroupApplyTime, f.Applies, name)
	s.count(descGroupElections, f.Lead.Elections, name)
	s.count(descGroupChanges, f.Lead.Changes, name)
	s.gauge(descGroupLogBytes, float64(f.LogBytes), name)
	s.gauge(descGroupStateBytes, float64(f.StateBytes), name)
	s.gauge(descGroupWatchers, float64(f.Watchers), name)
	s.gauge(descGroupSessions, float64(f.Sessions), name)
	s.gauge(descGroupLeases, float64(f.Leases), name)
	s.count(descGroupSent, f.SnapshotsSent, name)
	s.count(descGroupTaken, f.SnapshotsTaken, name)
	now := n.Status()
	s.flag(descGroupLeads, now.Role == arakoon.RoleLeader, name)
	s.gauge(descGroupTerm, float64(now.Term), name)
	s.flag(descGroupStuck, !now.ExpectProgressPossible(), name)
	for _, p := range now.Peers {
		member := strconv.FormatUint(p.ID, 10)
		s.gauge(descGroupLag, float64(p.Lag), name, member)
		s.flag(descGroupHeard, p.RecentActive, name, member)
	}
}

// histogram tells of durations in seconds.
func (s sink) histogram(d *prometheus.Desc, of arakoon.Durations, labels ...string) {
	buckets, below := map[float64]uint64{}, uint64(0)
	for i, bound := range arakoon.DurationBounds {
		below += of.Buckets[i]
		buckets[bound.Seconds()] = below
	}
	s <- prometheus.MustNewConstHistogram(d, of.Count(), float64(of.Total)/float64(time.Second), buckets, labels...)
}
