package transport

import (
	"errors"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
)

// In whatever order requests come, each run is delivered in its order; of a run that is over
// nothing comes any more.
func TestOrderIsPutBack(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 5))
		type request struct {
			run    uint32
			number uint64
		}
		var sent []request
		for run := range uint32(3) {
			for n := range uint64(rng.IntN(20)) {
				sent = append(sent, request{run + 1, n})
			}
		}
		came := append([]request(nil), sent...)
		rng.Shuffle(len(came), func(i, j int) { came[i], came[j] = came[j], came[i] })
		var o order
		var run uint32
		var next uint64
		delivered, stale := 0, 0
		for _, r := range came {
			m := &pb.Message{Term: new(uint64(r.run)), Index: new(r.number)}
			n, err := o.take(r.run, r.number, arrived{[]*pb.Message{m}, 10})
			if err != nil {
				t.Fatal(err)
			}
			stale += n
			for {
				got, ok := o.next()
				if !ok {
					break
				}
				delivered++
				if r := uint32(got[0].GetTerm()); r > run {
					run, next = r, 0
				} else if r < run {
					t.Fatalf("seed %d: run %d after run %d", seed, r, run)
				}
				if got[0].GetIndex() != next {
					t.Fatalf("seed %d: number %d of run %d instead of %d", seed, got[0].GetIndex(), run, next)
				}
				next++
			}
		}
		if o.bytes != 10*len(o.held) || delivered+stale+len(o.held) != len(sent) {
			t.Fatalf("seed %d: %d delivered, %d stale, %d held of %d bytes, %d sent", seed, delivered, stale, len(o.held), o.bytes, len(sent))
		}
	}
}

func TestOrderIsBounded(t *testing.T) {
	var o order
	for i := range uint64(heldMost) {
		if _, err := o.take(1, 1+i, arrived{size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.take(1, heldMost+1, arrived{}); !errors.Is(err, ErrOrder) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := o.take(1, 5, arrived{}); !errors.Is(err, ErrOrder) {
		t.Errorf("twice: %v", err)
	}
	if _, err := o.take(2, 1, arrived{size: heldBytesMost}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.take(2, 2, arrived{size: 1}); !errors.Is(err, ErrOrder) {
		t.Errorf("too many bytes: %v", err)
	}
	if _, err := o.take(2, 0, arrived{size: 1}); err != nil {
		t.Errorf("the one that is waited for: %v", err)
	}
}
