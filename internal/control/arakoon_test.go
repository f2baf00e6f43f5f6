package control

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fakeGroups answers about groups.
type fakeGroups struct {
	Arakoon
	watching chan struct{} // gets one for each watch that has begun
	wrote    KeyWrite
	held     chan struct{} // Write waits for it if it is not nil
	writing  chan struct{}
	now      atomic.Int64 // writes that are held
	most     atomic.Int64
}

func (f *fakeGroups) Leases(context.Context, string) ([]ArakoonLease, error) {
	return []ArakoonLease{{Name: "l", Fence: 7, TTL: time.Second}}, nil
}

func (f *fakeGroups) Write(_ context.Context, w KeyWrite) (KeyWritten, error) {
	if f.held != nil && w.Group != "small" {
		f.most.Store(max(f.most.Load(), f.now.Add(1)))
		defer f.now.Add(-1)
		f.writing <- struct{}{}
		<-f.held
		return KeyWritten{}, nil
	}
	f.wrote = w
	return KeyWritten{Revision: 3, Old: w.Expected}, nil
}

func (f *fakeGroups) Watch(ctx context.Context, w KeyWatch, tell func(KeyEvents) error) error {
	for i := range uint64(3) {
		if err := tell(KeyEvents{Revision: w.From + i, Events: []KeyEvent{{Key: w.Prefix}}}); err != nil {
			return err
		}
	}
	f.watching <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fakeGroups) Backup(_ context.Context, group string, write func(string, []byte) error) ([]ArakoonBackup, error) {
	for _, piece := range []string{"one", "\x00two", strings.Repeat("x", 1<<20)} {
		if err := write(group, []byte(piece)); err != nil {
			return nil, err
		}
	}
	if group == "bad" {
		return nil, ErrBusy
	}
	return []ArakoonBackup{{Group: group, Revision: 9}}, nil
}

func serveGroups(t *testing.T, f Arakoon) (*Server, *GroupsClient) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Options{Arakoon: f})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-done); err != nil {
			t.Error(err)
		}
	})
	return s, OfGroups(NewClient(dir))
}

// TestBackupComesInPieces, each as it was sent, and ends with what it is of, or an error.
func TestBackupComesInPieces(t *testing.T) {
	_, client := serveGroups(t, &fakeGroups{})
	var got bytes.Buffer
	list, err := client.Backup(t.Context(), "g", func(group string, piece []byte) error { got.WriteString(group); got.Write(piece); return nil })
	if err != nil || len(list) != 1 || list[0].Revision != 9 || got.String() != "goneg\x00twog"+strings.Repeat("x", 1<<20) {
		t.Errorf("%v, %v, %d bytes", list, err, got.Len())
	}
	if _, err := client.Backup(t.Context(), "bad", func(string, []byte) error { return nil }); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	full := errors.New("disk full")
	if _, err := client.Backup(t.Context(), "g", func(string, []byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}

// TestWatchesEndWithTheServer, and are bounded: a stop does not wait for whoever watches.
func TestWatchesEndWithTheServer(t *testing.T) {
	f := &fakeGroups{watching: make(chan struct{}, streamCalls)}
	s, client := serveGroups(t, f)
	ended := make(chan error, streamCalls)
	for range streamCalls {
		go func() {
			last := uint64(4)
			ended <- client.Watch(context.Background(), KeyWatch{Prefix: []byte{0xff}, From: 5}, func(e KeyEvents) error {
				if last++; e.Revision != last || !bytes.Equal(e.Events[0].Key, []byte{0xff}) {
					t.Errorf("%+v", e)
				}
				return nil
			})
		}()
	}
	for range streamCalls {
		<-f.watching
	}
	if err := client.Watch(t.Context(), KeyWatch{}, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("one watch more: %v", err)
	}
	if _, err := client.Leases(t.Context(), "g"); err != nil {
		t.Errorf("beside watches: %v", err)
	}
	if err := s.Shutdown(context.Background()); err != nil { // it has no limit of time
		t.Fatal(err)
	}
	for range streamCalls {
		if err := <-ended; !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "stopping") {
			t.Errorf("%v", err)
		}
	}
}

// TestLargeValuesAreTaken, few of them at once; others wait, and small ones do not.
func TestLargeValuesAreTaken(t *testing.T) {
	f := &fakeGroups{}
	_, client := serveGroups(t, f)
	value, none := bytes.Repeat([]byte{0, 0xff}, 4<<20), []byte{}
	r, err := client.Write(t.Context(), KeyWrite{Group: "g", Key: []byte{0xfe}, Value: &value, Expected: &none})
	if err != nil || r.Revision != 3 || r.Old == nil || len(*r.Old) != 0 || !bytes.Equal(*f.wrote.Value, value) || f.wrote.Expected == nil || *f.wrote.Expected == nil {
		t.Errorf("%+v, %v", r, err)
	}
	held := &fakeGroups{held: make(chan struct{}), writing: make(chan struct{})}
	_, client = serveGroups(t, held)
	large := KeyWrite{Group: "g", Value: &value}
	ended := make(chan error, largeCalls)
	for range largeCalls {
		go func() { _, err := client.Write(context.Background(), large); ended <- err }()
		<-held.writing
	}
	go func() { _, err := client.Write(context.Background(), large); ended <- err }()
	if _, err := client.Write(t.Context(), KeyWrite{Group: "small"}); err != nil {
		t.Errorf("a small one beside them: %v", err)
	}
	if most := held.most.Load(); most > largeCalls {
		t.Errorf("%d large writes at once", most)
	}
	close(held.held)
	<-held.writing // the one that waited
	for range largeCalls + 1 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestNoGroups: a process without groups says so.
func TestNoGroups(t *testing.T) {
	_, client := serveGroups(t, nil)
	if _, err := client.Leases(t.Context(), "g"); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	if err := client.Watch(t.Context(), KeyWatch{}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	if _, err := client.Backup(t.Context(), "", nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}
