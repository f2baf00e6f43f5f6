package embedded

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"openvstorage/alba/cluster"
	"openvstorage/arakoon"
)

// silent is a manager whose group makes changes and does not tell.
type silent struct {
	cluster.Node
	left *atomic.Int32 // changes that are not answered
}

func (s silent) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	result, err := s.Node.Call(ctx, name, version, arg)
	if err == nil && s.left.Add(-1) >= 0 {
		return nil, errors.Join(arakoon.ErrUnknownOutcome, context.DeadlineExceeded)
	}
	return result, err
}

// What the ABM has decided without telling is followed: a disk that it has taken
// in is used, one that it has given up is not, and none is taken in twice.
func TestUnanswered(t *testing.T) {
	fs := newDisk(t)
	o := options(fs)
	var left atomic.Int32
	o.Node = func(name string, n cluster.Node) cluster.Node {
		if name == "abm" {
			return silent{n, &left}
		}
		return n
	}
	b, err := Open(ctx, o)
	must(t, err)
	fill(t, b, "n", 0, 12)
	left.Store(2) // that it is registered, and that it is claimed
	number, err := b.AddOSD(ctx, "")
	must(t, err)
	if d := b.fleet.Disk(number); d == nil || d.Missing() != nil || len(b.fleet.All()) != DefaultASD+1 {
		t.Fatalf("disk %d of %d: %v", number, len(b.fleet.All()), d)
	}
	left.Store(1)
	must(t, b.RemoveOSD(ctx, number))
	settled(t, b)
	if len(b.fleet.All()) != DefaultASD {
		t.Errorf("%d disks are left", len(b.fleet.All()))
	}
	// A namespace that is deleted without an answer is gone, with what was known of
	// it; one of the same name is another.
	left.Store(1)
	if err := b.DeleteNamespace(ctx, "n"); !errors.Is(err, arakoon.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	must(t, b.CreateNamespace(ctx, "n"))
	if _, err := get(b, "n", 0); err == nil {
		t.Error("an object of the namespace that was deleted is read")
	}
	fill(t, b, "n", 0, 4)
	holds(t, b, "n", 4)
	settled(t, b)
	must(t, b.Close())
}
