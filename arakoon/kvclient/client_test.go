package kvclient

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/state"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// A write that was given up never comes later than one that began after that: whoever has
// looked what became of it, and goes on from there, is not overtaken.
func TestAGivenUpWriteNeverComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := openNode(t)
		var hold atomic.Pointer[chan struct{}]
		h := newPipeHost(t, 3, n, kv.Options{Allow: func(_ *wire.Peer, op uint16) error {
			if gate := hold.Load(); gate != nil && op == kv.OpWrite {
				<-*gate
			}
			return nil
		}})
		client := newClient(t, Options{}, h)
		if _, err := client.Set(t.Context(), b("k"), b("1")); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		hold.Store(&gate)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err := client.Set(ctx, b("k"), b("given up"))
		if !errors.Is(err, arakoon.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a write that was given up: %v", err)
		}
		late := *client.sessions.stain[0]
		synctest.Wait() // the member knows that it was given up, and will not propose it
		hold.Store(nil)
		close(gate)
		// Nothing of it has come to the group yet. One write more, of whatever kind:
		if _, err := client.Nop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if client.sessions.stained.Load() != 0 || len(client.sessions.stain) != 0 {
			t.Error("a session is in doubt for ever")
		}
		_, _, err = n.ResumeSession(late.id, late.request).Retry(t.Context(), seq().Set(b("k"), b("late")))
		if !errors.Is(err, &arakoon.Error{Code: state.CodeStale}) {
			t.Errorf("the write that was given up came late: %v", err)
		}
		if got, err := n.Get(t.Context(), arakoon.Consistent, b("k")); err != nil || string(got) != "1" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// faulty is a node with faults.
type faulty struct {
	*arakoon.Node
	get func() error
}

func (f *faulty) Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error) {
	if err := f.get(); err != nil {
		return nil, err
	}
	return f.Node.Get(ctx, c, key)
}

// What is busy is tried again for a while, what has failed until ctx ends, and what is of no
// use not at all.
func TestHowOftenARequestIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		var fault atomic.Pointer[error]
		n := &faulty{Node: openNode(t)}
		n.get = func() error { tries.Add(1); return *fault.Load() }
		client := newClient(t, Options{}, newPipeHost(t, 3, n, kv.Options{}))
		if _, err := client.WhoMaster(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			fault       error
			is          error
			least, most int64
		}{
			{arakoon.ErrBusy, arakoon.ErrBusy, 20, 80},
			{arakoon.ErrFailed, context.DeadlineExceeded, 20, 400},
			{errors.New("a block cannot be read"), kv.ErrOther, 1, 1},
			{kv.ErrBadInput, kv.ErrBadInput, 1, 1},
		} {
			tries.Store(0)
			fault.Store(&tc.fault)
			ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := client.Get(ctx, arakoon.Consistent, b("k"))
			stop()
			if got := tries.Load(); !errors.Is(err, tc.is) || got < tc.least || got > tc.most {
				t.Errorf("%v: %d tries, %v", tc.fault, got, err)
			}
			if errors.Is(err, arakoon.ErrUnknownOutcome) {
				t.Errorf("a read has an unknown outcome: %v", err)
			}
		}
	})
}

// A session that the group has let go is opened anew, and the write is done, once.
func TestASessionThatExpiredIsOpenedAnew(t *testing.T) {
	n := openNode(t)
	client := newClient(t, Options{}, newHost(t, 3, n, kv.Options{}))
	if _, err := client.Call(t.Context(), "add", 1, one()); err != nil {
		t.Fatal(err)
	}
	before := client.sessions.free[0].id
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range state.SessionsMax / 16 {
				if _, err := n.NewSession(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if _, err := client.Call(t.Context(), "add", 1, one()); err != nil {
		t.Fatal(err)
	}
	if after := client.sessions.free[0].id; after == before || after == uuid.Nil {
		t.Errorf("session %v after %v", after, before)
	}
	if got := sum(t, n); got != 2 {
		t.Errorf("the sum is %d", got)
	}
}

// A result that was too long to be kept for a retry is told as that: the write was done.
func TestALostResultIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := openNode(t)
		h := newPipeHost(t, 3, n, kv.Options{})
		f := &faults{}
		h.wrap = func(c net.Conn) net.Conn { return cutter{c, f} }
		client := newClient(t, Options{}, h)
		if _, err := client.Set(t.Context(), b("k"), make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.n, f.every = 0, 2 // the request leaves, and its answer does not come
		f.mu.Unlock()
		lost := make(chan error, 1)
		go func() {
			_, _, err := client.Replace(t.Context(), b("k"), b("new"))
			lost <- err
		}()
		synctest.Wait()
		f.mu.Lock()
		f.every = 0
		f.mu.Unlock()
		err := <-lost
		if err != nil && (!errors.Is(err, arakoon.ErrUnknownOutcome) || !errors.Is(err, &arakoon.Error{Code: state.CodeResultLost})) {
			t.Errorf("%v", err)
		}
		if err == nil {
			t.Error("no answer was lost")
		}
		if got, err := client.Get(t.Context(), arakoon.Consistent, b("k")); err != nil || string(got) != "new" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Members that refuse this client for good are not asked for ever.
func TestRefusedByAll(t *testing.T) {
	h := newHost(t, 3, openNode(t), kv.Options{})
	client := newClient(t, Options{Members: func() []Member {
		m := h.member()
		m.Dial.Identity.Cluster = uuid.New()
		return []Member{m}
	}})
	if _, err := client.Set(t.Context(), b("k"), b("v")); !errors.Is(err, wire.ErrCluster) || errors.Is(err, arakoon.ErrUnknownOutcome) {
		t.Errorf("another cluster: %v", err)
	}
	denied := newClient(t, Options{}, newHost(t, 3, openNode(t), kv.Options{Allow: func(_ *wire.Peer, op uint16) error {
		if kv.OpWrites(op) {
			return errors.New("viewers change nothing")
		}
		return nil
	}}))
	if _, err := denied.Set(t.Context(), b("k"), b("v")); !errors.Is(err, wire.ErrDenied) || !strings.Contains(err.Error(), "viewers change nothing") {
		t.Errorf("denied: %v", err)
	}
	if _, err := denied.Exists(t.Context(), arakoon.Consistent, b("k")); err != nil {
		t.Error(err)
	}
}

// Close ends all that waits, and leaves nothing.
func TestCloseEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nowhere := Member{ID: 1, Dial: wire.DialOptions{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("nobody is there") }}}
		client := newClient(t, Options{Sessions: 1, Members: func() []Member { return []Member{nowhere} }})
		ended := make(chan error, 8)
		for range 2 {
			go func() { _, err := client.Set(context.Background(), b("k"), b("v")); ended <- err }()
			go func() { _, err := client.Get(context.Background(), arakoon.Local, b("k")); ended <- err }()
			go func() { _, err := client.WhoMaster(context.Background()); ended <- err }()
			go func() {
				ended <- client.Prefix(context.Background(), arakoon.Consistent, nil, 0, func(_, _ []byte) bool { return true })
			}()
		}
		time.Sleep(time.Minute)
		client.Close()
		for range 8 {
			if err := <-ended; !errors.Is(err, arakoon.ErrClosed) || errors.Is(err, arakoon.ErrUnknownOutcome) {
				t.Errorf("%v", err)
			}
		}
		if _, err := client.Set(t.Context(), b("k"), b("v")); !errors.Is(err, arakoon.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A member that has moved is found under its new address, and one that is new is taken up.
func TestMembersThatMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		known := []*host{c.hosts[1]}
		var mu sync.Mutex
		client := newClient(t, Options{Members: func() (list []Member) {
			mu.Lock()
			defer mu.Unlock()
			for _, h := range known {
				list = append(list, h.member())
			}
			return list
		}})
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		if leader := c.leader(); leader == 2 {
			t.Fatal("member 1 leads a new group")
		}
		if _, err := client.Set(ctx, b("k"), b("1")); err == nil {
			t.Error("the leader is not in the list")
		}
		mu.Lock()
		known = c.hosts
		mu.Unlock()
		if _, err := client.Set(t.Context(), b("k"), b("2")); err != nil {
			t.Fatal(err)
		}
		h := c.hosts[c.leader()-1]
		h.down()
		h.listen(t)
		if got, err := client.Get(t.Context(), arakoon.Consistent, b("k")); err != nil || string(got) != "2" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// The counts and lists beside those of the suite.
func TestCalls(t *testing.T) {
	client := newClient(t, Options{PageSize: 1}, newHost(t, 3, openNode(t), kv.Options{}))
	for _, k := range []string{"a", "b", "c"} {
		if _, err := client.Set(t.Context(), b(k), b("value of "+k)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := client.Count(t.Context(), arakoon.Consistent, nil, b("c")); err != nil || n != 2 {
		t.Errorf("%d keys, %v", n, err)
	}
	var keys []string
	if err := client.Keys(t.Context(), arakoon.Local, nil, nil, 0, func(k []byte) bool { keys = append(keys, string(k)); return true }); err != nil || strings.Join(keys, "") != "abc" {
		t.Errorf("%q, %v", keys, err)
	}
	for k, want := range map[string]bool{"a": true, "z": false} {
		for _, how := range []arakoon.Consistency{arakoon.Consistent, arakoon.Local} {
			if got, err := client.Exists(t.Context(), how, b(k)); err != nil || got != want {
				t.Errorf("%s exists %v, %v", k, got, err)
			}
		}
	}
	if old, _, err := client.TestAndSet(t.Context(), b("a"), b("other"), b("new")); err != nil || string(old) != "value of a" {
		t.Errorf("%q, %v", old, err)
	}
	if old, _, err := client.Replace(t.Context(), b("a"), nil); err != nil || string(old) != "value of a" {
		t.Errorf("%q, %v", old, err)
	}
	if old, _, err := client.TestAndSet(t.Context(), b("a"), nil, b("new")); err != nil || old != nil {
		t.Errorf("%q, %v", old, err)
	}
	var absent *arakoon.ErrNotFound
	if _, err := client.Delete(t.Context(), b("z")); !errors.As(err, &absent) {
		t.Error(err)
	}
	if n, revision, err := client.DeletePrefix(t.Context(), nil); err != nil || n != 3 || revision == 0 {
		t.Errorf("%d, %v", n, err)
	}
	var e *arakoon.Error
	if _, err := client.Get(t.Context(), arakoon.Local, make([]byte, state.KeyMax+2)); !errors.As(err, &e) || e.Code != state.CodeTooLarge {
		t.Error(err)
	}
	if _, err := client.MultiGet(t.Context(), arakoon.Local, make([][]byte, kv.KeysMax+1)...); !errors.As(err, &e) || e.Code != state.CodeTooLarge {
		t.Error(err)
	}
	if got := backOff(time.Millisecond, 8*time.Millisecond, 100); got < 4*time.Millisecond || got > 8*time.Millisecond {
		t.Errorf("a wait of %v", got)
	}
}
