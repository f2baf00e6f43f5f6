package arakoon

import (
	"encoding/binary"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// How often a member asks how far it should be, in heartbeats: so often at most while somebody
// wants to know, and once more when an answer has not come for so long.
const (
	askAge      = 1
	askAgeAgain = 10
)

// ages finds out how old what a member reads may be. A member asks the leader for the index
// that a consistent read would have to see, which the leader tells when a majority has
// confirmed that it leads. Once that index is applied here, this member sees all that was
// answered before it asked. Nobody asks while nobody wants to know: an idle group stays silent.
// Times are of the clock that never jumps; what a machine sleeps is not in them.
type ages struct {
	mu       sync.Mutex
	round    uint64    // of the newest question
	asked    time.Time // when that was asked
	waits    bool      // for its answer
	index    uint64    // of the answer: what was applied must reach it
	answered time.Time // when that was asked for; zero: there is none that waits
	asOf     time.Time // all that was answered before this is applied; zero: not known
}

// look returns since when all is here, and whether it is time to ask again.
func (a *ages) look(now time.Time, applied uint64, tick time.Duration) (asOf time.Time, ask bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(applied)
	if since := now.Sub(a.asked); a.asked.IsZero() || since >= askAgeAgain*tick || !a.waits && since >= askAge*tick {
		a.round++
		a.asked, a.waits, ask = now, true, true
	}
	return a.asOf, ask
}

// settle takes an answer over when what it speaks of is applied.
func (a *ages) settle(applied uint64) {
	if !a.answered.IsZero() && applied >= a.index {
		a.asOf, a.answered = a.answered, time.Time{}
	}
}

// answer notes the index that a question got. While an earlier one waits to be applied, that
// one stays: with others in its place none might ever come to its turn.
func (a *ages) answer(round, index, applied uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if round != a.round || !a.waits {
		return
	}
	a.waits = false
	if a.settle(applied); a.answered.IsZero() {
		a.index, a.answered = index, a.asked
	}
	a.settle(applied)
}

// ageRound is a question of a member: its number and that of the question, which no other one
// has.
const ageRound = 16

func (a *ages) question(member uint64) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, member), a.round)
}

// asksAge reports whether a message asks for the sake of an age, or answers that: all that it
// has is the question, which names who asks.
func asksAge(m *pb.Message, asker uint64) bool {
	if len(m.GetEntries()) != 1 || m.GetSnapshot() != nil || len(m.GetResponses()) > 0 {
		return false
	}
	q := m.GetEntries()[0].GetData()
	return len(q) == ageRound && binary.BigEndian.Uint64(q) == asker
}

// wantsAge has the stepper ask.
type wantsAge struct{}

// heardAge takes what raft says of a question for an age, and reports whether it was one.
func (p *progress) heardAge(r raft.ReadState) bool {
	if len(r.RequestCtx) != ageRound {
		return false
	}
	applied, _ := p.now()
	p.ages.answer(binary.BigEndian.Uint64(r.RequestCtx[8:]), r.Index, applied)
	return true
}

// AsOf is a time, for time.Since, as of which a read that begins now sees everything: every
// write that was answered before it is there, whatever the read's consistency. Other members
// may have answered later ones. known is false as long as this member has not found out. It
// finds out in the background, by asking the leader at most every Options.Tick, and only while
// AsOf is called; so whoever asks seldom hears of the time at which somebody asked last. A
// group of one knows at once.
func (q QueryCalls) AsOf() (asOf time.Time, known bool) {
	n := q.node
	now := time.Now()
	applied, _ := n.progress.now()
	if c := n.state.Applied().Conf; n.leading.Load() && len(c.GetVoters()) == 1 && len(c.GetVotersOutgoing())+len(c.GetLearners()) == 0 {
		return now, true
	}
	asOf, ask := n.progress.ages.look(now, applied, n.opt.Tick)
	if ask && n.Err() == nil {
		n.work.put(wantsAge{})
	}
	return asOf, !asOf.IsZero()
}
