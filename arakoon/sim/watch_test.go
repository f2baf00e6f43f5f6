package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"openvstorage/arakoon/raftlog"
	"openvstorage/internal/disk/crashdisk"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

type ballot struct{ member, term uint64 }

// place is how far a member said that its log holds that of a term's leader.
type place struct{ term, index uint64 }

// watch looks at a history from outside: it sees every message where it is sent, and
// collects whatever must not be.
type watch struct {
	mu      sync.Mutex
	began   time.Time
	leaders map[uint64]uint64 // by term
	votes   map[ballot]uint64
	terms   map[uint64]uint64 // the highest in which a member has voted or acknowledged
	said    map[uint64]string // and what it was
	acked   map[uint64]place
	holds   map[uint64]uint64 // the highest index that a member has acknowledged
	zone    func(uint64) string
	zoned   []stretch         // of indexes that two zones must have before they are answered
	content map[uint64]string // by applied index
	newest  uint64            // the highest index of a write that was answered
	bad     []string
	events  []string
}

func newWatch() *watch {
	return &watch{
		began: time.Now(), leaders: map[uint64]uint64{}, votes: map[ballot]uint64{}, terms: map[uint64]uint64{}, said: map[uint64]string{},
		acked: map[uint64]place{}, holds: map[uint64]uint64{}, content: map[uint64]string{},
	}
}

// eventsMost bounds what is told of a history that failed.
const eventsMost = 400

// note remembers what happened, for whoever reads a violation.
func (w *watch) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) < eventsMost {
		w.events = append(w.events, fmt.Sprintf("%8.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
	}
}

// now is the time of the history.
func (w *watch) now() time.Duration { return time.Since(w.began) }

func (w *watch) violation(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violationLocked(format, args...)
}

func (w *watch) violationLocked(format string, args ...any) {
	if len(w.bad) < 20 {
		w.bad = append(w.bad, fmt.Sprintf("%8.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *watch) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.bad) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(w.bad, "\n"))
}

func (w *watch) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.events, "\n")
}

// sent looks at a message.
func (w *watch) sent(m *pb.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	from, term := m.GetFrom(), m.GetTerm()
	switch m.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap, pb.MsgTimeoutNow:
		if was, ok := w.leaders[term]; ok && was != from {
			w.violationLocked("term %d has two leaders, %d and %d", term, was, from)
		}
		w.leaders[term] = from
		w.voteLocked(m, from)
	case pb.MsgVote:
		w.voteLocked(m, from) // its own vote is durable before it asks
	case pb.MsgVoteResp:
		if !m.GetReject() {
			w.voteLocked(m, m.GetTo())
		}
	case pb.MsgAppResp:
		if at := (place{term, m.GetIndex()}); !m.GetReject() {
			if w.acked[from].before(at) {
				w.acked[from] = at
			}
			w.holds[from] = max(w.holds[from], at.index)
		}
		w.termLocked(m)
	}
}

// termLocked notes that a member has said something that binds it to a term.
func (w *watch) termLocked(m *pb.Message) {
	if from, term := m.GetFrom(), m.GetTerm(); term > w.terms[from] {
		w.terms[from], w.said[from] = term, fmt.Sprintf("%v to %d, index %d, reject %v", m.GetType(), m.GetTo(), m.GetIndex(), m.GetReject())
	}
}

func (p place) before(q place) bool {
	return p.term < q.term || p.term == q.term && p.index < q.index
}

// voteLocked notes that the sender has voted for a candidate, or leads and so has voted for itself.
func (w *watch) voteLocked(m *pb.Message, candidate uint64) {
	b := ballot{m.GetFrom(), m.GetTerm()}
	if was, ok := w.votes[b]; ok && was != candidate {
		w.violationLocked("member %d votes for %d and for %d in term %d", b.member, was, candidate, b.term)
	}
	w.votes[b] = candidate
	w.termLocked(m)
}

// answered notes that a member has answered a write. Where zones are required, members of
// another zone than its own must have acknowledged it.
func (w *watch) answered(member, index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.newest = max(w.newest, index)
	if !slices.ContainsFunc(w.zoned, func(s stretch) bool { return s.first <= index && index < s.end }) {
		return
	}
	for other, held := range w.holds {
		if held >= index && w.zone(other) != w.zone(member) {
			return
		}
	}
	w.violationLocked("member %d has answered index %d, and zone %s alone has it", member, index, w.zone(member))
}

// stretch is of indexes.
type stretch struct{ first, end uint64 }

// requires notes that from an index on two zones must have what is answered.
func (w *watch) requires(index uint64, zone func(uint64) string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone, w.zoned = zone, append(w.zoned, stretch{index, math.MaxUint64})
}

// lowers notes that the requirement may be lowered behind all that was answered so far.
func (w *watch) lowers() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.zoned {
		w.zoned[i].end = min(w.zoned[i].end, w.newest+1)
	}
}

// newestAnswered is the highest index that was answered.
func (w *watch) newestAnswered() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest
}

// has notes what a member has at an applied index. Any two members have the same there.
func (w *watch) has(member, index uint64, content string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if was, ok := w.content[index]; ok && was != content {
		w.violationLocked("member %d differs from another one at index %d: it has\n%s\nand the other\n%s", member, index, content, was)
	}
	w.content[index] = content
}

// restarts checks, on a copy of a member's disk, that its log has whatever the member had
// acknowledged. Only a leader of a later term may have cut that off.
func (w *watch) restarts(id uint64, cluster uuid.UUID, disk *crashdisk.FS) {
	w.mu.Lock()
	at, term, said := w.acked[id], w.terms[id], w.said[id]
	w.mu.Unlock()
	l, err := raftlog.Open(raftlog.Options{FS: disk.Kill(), Dir: memberDir + "/log", Marks: memberDir + ".marks", Cluster: cluster, Member: id, SegmentBytes: segmentBytes})
	if err != nil {
		if term > 0 {
			w.violation("the log of member %d cannot be opened: %v", id, err)
		}
		return
	}
	defer l.Close()
	hard, _, err := l.InitialState()
	if err != nil {
		w.violation("the log of member %d: %v", id, err)
		return
	}
	if hard.GetTerm() < term {
		w.violation("member %d restarts in term %d, and has said something in term %d: %s", id, hard.GetTerm(), term, said)
	}
	last, err := l.LastIndex()
	if err != nil || last < at.index && hard.GetTerm() <= at.term {
		w.violation("member %d restarts with entries up to %d, and has acknowledged %d in term %d, %v", id, last, at.index, at.term, err)
	}
}
