package arakoon

import (
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Whatever another member sends: what raft would stumble over never reaches it, and the
// group goes on.
func TestBadMessages(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		lead := c.leader()
		id := lead.opt.Member
		follower := c.node(1 + id%3)
		set(t, lead, "a", "1")
		synctest.Wait()
		term, last := lead.Status().Term, lead.Status().Commit
		entry := func(index, term uint64, data int) *pb.Entry {
			return &pb.Entry{Index: new(index), Term: new(term), Type: pb.EntryNormal.Enum(), Data: make([]byte, data)}
		}
		message := func(from uint64, to *Node, kind pb.MessageType, fill func(m *pb.Message)) {
			t.Helper()
			m := &pb.Message{Type: kind.Enum(), From: new(from), To: new(to.opt.Member), Term: new(term)}
			fill(m)
			before := to.Stats().Dropped
			err := to.Step(m)
			to.Status() // it is taken by then
			if after := to.Stats().Dropped; raft.IsLocalMsg(kind) != (err != nil) || err == nil && after != before+1 {
				t.Errorf("%v was taken: %v, %d dropped", m, err, after-before)
			}
		}
		other := follower.opt.Member
		for _, kind := range []pb.MessageType{pb.MsgHup, pb.MsgUnreachable, pb.MsgSnapStatus, pb.MsgStorageAppendResp, pb.MsgProp, pb.MsgReadIndex, pb.MsgReadIndexResp, pb.MsgTransferLeader, pb.MsgForgetLeader} {
			message(other, lead, kind, func(*pb.Message) {})
		}
		question := func(asker uint64, more ...byte) func(m *pb.Message) {
			data := append((&ages{}).question(asker), more...)
			return func(m *pb.Message) {
				m.Entries = []*pb.Entry{{Data: data}}
				if m.GetType() == pb.MsgReadIndex {
					m.Term = nil
				}
			}
		}
		message(other, lead, pb.MsgReadIndex, question(id))                                                      // for somebody else
		message(other, lead, pb.MsgReadIndex, func(m *pb.Message) { question(other)(m); m.Term = new(term) })    // with a term
		message(other, lead, pb.MsgReadIndex, question(other, 1))                                                // too long
		message(other, lead, pb.MsgReadIndex, func(m *pb.Message) { m.Term, m.Entries = nil, []*pb.Entry{nil} }) // of nothing
		message(id, follower, pb.MsgReadIndex, question(id))                                                     // who does not lead
		message(99, lead, pb.MsgReadIndex, question(99))                                                         // of a stranger
		message(id, follower, pb.MsgReadIndexResp, question(id))                                                 // the answer to another one
		message(other, lead, pb.MsgHeartbeatResp, func(m *pb.Message) { m.To = new(uint64(77)) })
		message(id, lead, pb.MsgHeartbeatResp, func(*pb.Message) {})
		message(0, lead, pb.MsgHeartbeatResp, func(*pb.Message) {})
		message(other, lead, pb.MsgHeartbeatResp, func(m *pb.Message) { m.Term = nil })
		message(99, lead, pb.MsgHeartbeatResp, func(*pb.Message) {})
		message(other, lead, pb.MsgAppResp, func(m *pb.Message) { m.Index = new(last + 1000) })
		message(99, follower, pb.MsgTimeoutNow, func(*pb.Message) {})
		message(id, follower, pb.MsgSnap, func(*pb.Message) {})
		for _, entries := range [][]*pb.Entry{{nil}, {entry(last+2, term, 1)}, {entry(last+1, term+1, 1)}, {entry(last+1, term, 1), entry(last+1, term, 1)}, {entry(last+1, term, 1), entry(last+2, term-1, 1)}} {
			message(id, follower, pb.MsgApp, func(m *pb.Message) { m.Index, m.LogTerm, m.Entries = new(last), new(term), entries })
		}
		set(t, lead, "a", "2")
		c.same("a", "2")
	})
}

// What comes faster than it is taken is dropped, and takes no memory.
func TestInboxIsBounded(t *testing.T) {
	n := &Node{opt: Options{Member: 1}, work: newQueue[any](), end: newShutdown("/node")}
	big := func() *pb.Message {
		return &pb.Message{Type: pb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(1)),
			Entries: []*pb.Entry{{Index: new(uint64(1)), Term: new(uint64(1)), Data: make([]byte, 8<<20)}}}
	}
	for range 20 {
		if err := n.Step(big()); err != nil {
			t.Fatal(err)
		}
	}
	queued := len(n.work.take())
	if queued != inboxBytes/(8<<20) || n.inbox.dropped.Load() != uint64(20-queued) {
		t.Errorf("%d are queued, %d dropped", queued, n.inbox.dropped.Load())
	}
	n = &Node{opt: Options{Member: 1}, work: newQueue[any](), end: newShutdown("/node")}
	for range 20 { // of snapshots, whose descriptions can be long
		_ = n.Step(&pb.Message{Type: pb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(1)), Snapshot: &pb.Snapshot{
			Data: make([]byte, 8<<20), Metadata: &pb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: &pb.ConfState{Voters: []uint64{1}}},
		}})
	}
	if queued := len(n.work.take()); queued != inboxBytes/(8<<20) {
		t.Errorf("%d words of snapshots are queued", queued)
	}
	n = &Node{opt: Options{Member: 1}, work: newQueue[any](), end: newShutdown("/node")}
	for range inboxMessages + 10 {
		_ = n.Step(&pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(1))})
	}
	if queued := len(n.work.take()); queued != inboxMessages {
		t.Errorf("%d are queued", queued)
	}
}

// A member that is alone ticks no more often than before there were others, and writes
// nothing while it is idle; nor do three.
func TestIdleCostsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		n := c.start(1)
		if n.stepper.pace() != n.opt.Tick {
			t.Error("a lone member ticks too often")
		}
		quiet := func(ids ...uint64) {
			t.Helper()
			time.Sleep(5 * time.Second)
			var before []uint64
			for _, id := range ids {
				before = append(before, c.node(id).Stats().Syncs)
			}
			time.Sleep(time.Minute)
			for i, id := range ids {
				if now := c.node(id).Stats().Syncs; now != before[i] {
					t.Errorf("member %d synced %d times while nothing was asked of it", id, now-before[i])
				}
			}
		}
		quiet(1)
		c.start(2)
		c.start(3)
		if err := n.AddLearner(t.Context(), 2, 3); err != nil {
			t.Fatal(err)
		}
		c.promote(n, 2, 3)
		quiet(1, 2, 3)
	})
}
