package client_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/backend"
	"openvstorage/internal/gate"

	"golang.org/x/sys/unix"
)

// spoil has what a disk holds be bad.
func spoil(t *testing.T, b *albatest.Backend, number uint64) {
	t.Helper()
	list, err := b.Disks[number].Range(ctx, nil, nil, 100)
	check(t, err)
	for _, info := range list {
		b.Disks[number].Corrupt(info.Key, 0)
	}
}

// What fewer than k disks can give is unavailable if the others may yet give it, and is
// an error for good if not. The error names the object and the disks.
func TestLacking(t *testing.T) {
	away := func(number uint64) func(*testing.T, *albatest.Backend) {
		return func(_ *testing.T, b *albatest.Backend) { b.Take(number) }
	}
	bad := func(number uint64) func(*testing.T, *albatest.Backend) {
		return func(t *testing.T, b *albatest.Backend) { spoil(t, b, number) }
	}
	lost := func(number uint64) func(*testing.T, *albatest.Backend) {
		return func(_ *testing.T, b *albatest.Backend) { b.Fleet.Remove(number) }
	}
	fails := func(number uint64, err error) func(*testing.T, *albatest.Backend) {
		return func(_ *testing.T, b *albatest.Backend) {
			b.Faults[number].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Read}, Err: err})
		}
	}
	type happenings = []func(*testing.T, *albatest.Backend)
	for what, c := range map[string]struct {
		happen      happenings
		unavailable bool
		names       []string
	}{
		"two away":                {happenings{away(1), away(2)}, true, []string{"disk 1", "disk 2"}},
		"all away":                {happenings{away(1), away(2), away(3)}, true, []string{"disk 1", "disk 2", "disk 3"}},
		"one away, one bad":       {happenings{away(1), bad(2)}, true, []string{"disk 1", "disk 2"}},
		"one lost, one away":      {happenings{lost(1), away(2)}, true, []string{"disk 1", "disk 2"}},
		"two bad":                 {happenings{bad(1), bad(2)}, false, []string{"disk 1", "disk 2"}},
		"one lost, one bad":       {happenings{lost(1), bad(2)}, false, []string{"disk 1", "disk 2"}},
		"two lost":                {happenings{lost(1), lost(2)}, false, []string{"disk 1", "disk 2"}},
		"two without descriptors": {happenings{fails(1, unix.EMFILE), fails(2, unix.EMFILE)}, true, []string{"disk 1", "disk 2"}},
		"two with bad sectors":    {happenings{fails(1, unix.EIO), fails(2, unix.EIO)}, false, []string{"disk 1", "disk 2"}},
	} {
		t.Run(what, func(t *testing.T) {
			b := albatest.New(t, 3, albatest.Small(twoOne), nil)
			check(t, b.CreateNamespace(ctx, "ns"))
			want := data(3*64<<10, 1)
			check(t, b.Namespace("ns").Put(ctx, "object", want))
			for _, happen := range c.happen {
				happen(t, b)
			}
			_, err := b.Namespace("ns").Get(ctx, "object", make([]byte, len(want)), 0)
			if err == nil || errors.Is(err, backend.ErrUnavailable) != c.unavailable {
				t.Fatalf("unavailable is to be %v: %v", c.unavailable, err)
			}
			for _, name := range append(c.names, "object object of namespace ns") {
				if !strings.Contains(err.Error(), name) {
					t.Errorf("the error does not name %s: %v", name, err)
				}
			}
		})
	}
}

// Disks that hang are treated as those that are away: a read of what they have soon ends,
// as unavailable. However often the read is made again, few of its requests stay with the
// disks. The read succeeds once they answer.
func TestLackingOfDisksThatHang(t *testing.T) {
	for _, hang := range [][]uint64{{1, 2}, {2, 3}, {1, 2, 3}} {
		synctest.Test(t, func(t *testing.T) {
			b := albatest.New(t, 3, albatest.Small(twoOne), nil)
			check(t, b.CreateNamespace(ctx, "ns"))
			want := data(3*64<<10, 1)
			check(t, b.Namespace("ns").Put(ctx, "object", want))
			go b.Fleet.Watch(t.Context(), nil)
			door := gate.New()
			for _, n := range hang {
				b.Faults[n].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Read}, Gate: door})
			}
			for i := range 300 {
				begin := time.Now()
				_, err := b.Namespace("ns").Get(ctx, "object", make([]byte, len(want)), 0)
				if !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprintf("disk %d", hang[0])) {
					t.Fatalf("%v hang: %v", hang, err)
				}
				if took := time.Since(begin); took > 15*time.Second || i > 5 && took > 5*time.Second {
					t.Fatalf("%v hang: read %d ended after %v", hang, i, took)
				}
				time.Sleep(time.Second)
			}
			for _, n := range hang {
				if d := b.Fleet.Disk(n); d.Stuck(32) || d.Silent() == nil {
					t.Errorf("disk %d: 32 requests and more stay: %v, silent: %v", n, d.Stuck(32), d.Silent())
				}
			}
			door.Open()
			time.Sleep(5 * time.Second)
			same(t, b.Namespace("ns"), "object", want)
		})
	}
}
