package kv

import (
	"context"
	"net"
	"testing"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// watched is a member whose watches have one event of 1 MiB, and then none until the gate opens.
type watched struct {
	Node
	told chan struct{}
	gate chan struct{}
}

func (w *watched) Applied() uint64 { return 100 }

func (w *watched) Watch(ctx context.Context, _ []byte, from uint64, fn func(arakoon.Events) error) error {
	if err := fn(arakoon.Events{Revision: from, List: []arakoon.Event{{Key: []byte("k"), Value: make([]byte, 1<<20)}}}); err != nil {
		return err
	}
	w.told <- struct{}{}
	select {
	case <-w.gate:
		return errEnough
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What many watches gather at a time is bounded like other answers, before any of it has left.
func TestWatchesAreBounded(t *testing.T) {
	n := &watched{told: make(chan struct{}, 8), gate: make(chan struct{})}
	s, err := NewServer(Options{Answers: 2<<20 - 1, Groups: func(string) (Group, bool) { return Group{Node: n}, true }})
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan wire.Answer, 8)
	watch := func() {
		answers <- s.Serve(t.Context(), &wire.Incoming{Op: OpWatch, Header: AppendWatch(nil, 7, WatchMax*1e9, PageMax, nil), Peer: &wire.Peer{Identity: wire.Identity{Host: uuid.New()}}})
	}
	for range 2 {
		go watch()
		<-n.told
	}
	go watch()
	select {
	case a := <-answers:
		if a.Status != StatusBusy {
			t.Errorf("status %s", StatusName(a.Status))
		}
	case <-n.told:
		t.Errorf("a watch gathers beyond the bound: %d bytes are held", s.Statistics().Held)
	}
	close(n.gate)
	for range 2 {
		a := <-answers
		if a.Status != 0 || a.Body.Len() < 1<<20 {
			t.Errorf("status %s, %d bytes", StatusName(a.Status), a.Body.Len())
		}
		a.Body.Release()
	}
	if held := s.Statistics().Held; held != 0 {
		t.Errorf("%d bytes are held by nobody", held)
	}
}

// A peer that takes all the room that one may have keeps no other from its answers.
func TestOnePeerLeavesAnswersToOthers(t *testing.T) {
	n := &watched{told: make(chan struct{}, 8), gate: make(chan struct{})}
	s, err := NewServer(Options{Answers: 3 << 20, Groups: func(string) (Group, bool) { return Group{Node: n}, true }})
	if err != nil {
		t.Fatal(err)
	}
	one, other := &wire.Peer{Identity: wire.Identity{Host: uuid.New()}}, &wire.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 7}}
	answers := make(chan wire.Answer, 8)
	watch := func(p *wire.Peer) {
		answers <- s.Serve(t.Context(), &wire.Incoming{Op: OpWatch, Header: AppendWatch(nil, 7, WatchMax*1e9, PageMax, nil), Peer: p})
	}
	for range 2 {
		go watch(one)
		<-n.told
	}
	go watch(one)
	if a := <-answers; a.Status != StatusBusy {
		t.Errorf("a peer that has more than half: status %s", StatusName(a.Status))
	}
	go watch(other)
	<-n.told
	close(n.gate)
	for range 3 {
		a := <-answers
		if a.Status != 0 {
			t.Errorf("status %s", StatusName(a.Status))
		}
		a.Body.Release()
	}
	if len(s.answers.by) != 0 || s.answers.total() != 0 {
		t.Errorf("of %v something is held", s.answers.by)
	}
}
