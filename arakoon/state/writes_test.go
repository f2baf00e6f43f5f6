package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// What a batch has written, and what the cache remembers of earlier ones, is
// what a map would hold: by key, by range, after failures and restarts, with
// more keys than the cache has room for.
func TestWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	model := map[string][]byte{}
	var work func(tx Tx) error // of the next call
	functions, err := NewRegistry(Function{Name: "work", Version: 1, Run: func(tx Tx, _ []byte) ([]byte, error) { return nil, work(tx) }})
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{FS: crashdisk.New(), Dir: "/state", Cluster: testCluster, Member: 3, Functions: functions, Begin: Position{Conf: &pb.ConfState{}}}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	key := func() []byte { return fmt.Appendf(nil, "%05d", r.IntN(20_000)) }
	hot := func() []byte { return fmt.Appendf(nil, "hot%d", r.IntN(4)) }
	get := func(tx Tx, own map[string][]byte, k []byte) {
		got, found := tx.Get(k)
		if want, ok := own[string(k)]; found != ok || !bytes.Equal(got, want) {
			t.Fatalf("%s is %q, %v; the model has %q, %v", k, got, found, want, ok)
		}
	}
	command := func(w *writes) {
		own := maps.Clone(model)
		fails := r.IntN(4) == 0
		work = func(tx Tx) error {
			for range 1 + r.IntN(60) {
				k := key()
				if r.IntN(3) == 0 {
					k = hot()
				}
				switch r.IntN(8) {
				case 0, 1, 2:
					get(tx, own, k)
				case 3, 4, 5:
					v := make([]byte, r.IntN(300))
					if r.IntN(40) == 0 {
						v = make([]byte, 2*recentValueMax)
					}
					tx.Set(k, v)
					own[string(k)] = v
				case 6:
					_, had := own[string(k)]
					if tx.Delete(k) != had {
						t.Fatalf("delete of %s: it was there: %v", k, had)
					}
					delete(own, string(k))
				case 7:
					if r.IntN(20) > 0 {
						continue
					}
					first, last := []byte("1"), []byte("10100")
					var got, want []string
					tx.Range(first, last, 0, func(k, v []byte) bool { got = append(got, fmt.Sprintf("%s %d", k, len(v))); return true })
					for _, k := range slices.Sorted(maps.Keys(own)) {
						if k >= string(first) && k < string(last) {
							want = append(want, fmt.Sprintf("%s %d", k, len(own[k])))
						}
					}
					if !slices.Equal(got, want) {
						t.Fatalf("the range holds %v, the model %v", got, want)
					}
				}
			}
			if fails {
				return errors.New("it fails")
			}
			return nil
		}
		out, err := s.run(w, body(t, new(Sequence).Call("work", 1, nil)), 1, &meta{time: 1})
		if err != nil || (out.Err != nil) != fails {
			t.Fatal(out, err)
		}
		if !fails {
			model = own
		}
	}
	for batch := range 150 {
		w := newWrites(s)
		for range 1 + r.IntN(8) {
			command(w)
		}
		if err := w.apply(); err != nil {
			t.Fatal(err)
		}
		w.close()
		if batch%50 == 49 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(opt); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k, want := range model {
		if got, found, err := s.Get([]byte(k)); err != nil || !found || !bytes.Equal(got, want) {
			t.Fatalf("%s: %q, %v, %v", k, got, found, err)
		}
	}
	if s.recent.bytes > recentMax {
		t.Errorf("the cache holds %d bytes", s.recent.bytes)
	}
}
