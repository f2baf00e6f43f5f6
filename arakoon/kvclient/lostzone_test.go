package kvclient

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/faultdisk"
)

// zoned is a cluster that requires two zones, of which member 1, which leads, is one by itself.
func zoned(t *testing.T, zones map[uint64]string) *cluster {
	c := newCluster(t, 3, func(_ uint64, o *arakoon.Options) { o.Zone = func(id uint64) string { return zones[id] } })
	first := c.nodes[1]
	c.until("member 1 leads", func() bool { return first.Leading() })
	if err := first.RaiseLevel(t.Context(), state.LevelNewest, true); err != nil {
		t.Fatal(err)
	}
	c.until("two zones are required", func() bool {
		_, err := first.RequireZones(t.Context(), 2, false)
		return err == nil
	})
	return c
}

// Of three zones, two of which must hold everything, that of the leader dies: a client goes on
// with the others within its deadline, and nobody has to do anything.
func TestFollowsToTheZonesThatAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := zoned(t, map[uint64]string{1: "a", 2: "b", 3: "c"})
		client := newClient(t, Options{}, c.hosts...)
		if _, err := client.Call(t.Context(), "add", 1, one()); err != nil {
			t.Fatal(err)
		}
		c.kill(1)
		ctx, stop := context.WithTimeout(t.Context(), 2*election)
		defer stop()
		if _, err := client.Call(ctx, "add", 1, one()); err != nil {
			t.Error(err)
		}
		if got := sum(t, client); got != 2 {
			t.Errorf("the sum is %d", got)
		}
	})
}

// The leader's zone dies, and the other one is not enough. A client's writes wait, and one that
// waits in vain is told which zone is missing. When a person has said that it is off, writes that
// wait are answered by the zone that is left; each is done once.
func TestFollowsToTheZoneThatSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := zoned(t, map[uint64]string{1: "south", 2: "north", 3: "north"})
		client := newClient(t, Options{}, c.hosts...)
		if _, err := client.Call(t.Context(), "add", 1, one()); err != nil {
			t.Fatal(err)
		}
		c.kill(1)
		c.leader()
		short, stop := context.WithTimeout(t.Context(), 5*election)
		defer stop()
		if _, err := client.Get(short, arakoon.Consistent, b("sum")); err == nil || !strings.Contains(err.Error(), "south") {
			t.Errorf("a read without the other zone: %v", err)
		}
		var answered atomic.Uint64
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				if _, err := client.Call(t.Context(), "add", 1, one()); err != nil {
					t.Error(err)
				}
				answered.Add(1)
			})
		}
		time.Sleep(5 * election)
		if n := answered.Load(); n > 0 {
			t.Errorf("%d writes were answered by one zone", n)
		}
		if _, err := newClient(t, Options{}, c.hosts...).RequireZones(t.Context(), 1, true); err != nil {
			t.Error(err)
		}
		writers.Wait()
		if got := sum(t, client); got != 5 {
			t.Errorf("5 were added, and the sum is %d", got)
		}
	})
}

// The disks of a majority are full. Whoever writes is told so within the deadline, by the names of
// the members; reads are served; and when there is room all goes on by itself.
func TestFullDisksAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := map[uint64]*faultdisk.FS{}
		c := newCluster(t, 3, func(id uint64, o *arakoon.Options) {
			disks[id] = faultdisk.New(o.FS)
			o.FS = disks[id]
		})
		client := newClient(t, Options{}, c.hosts...)
		if _, err := client.Set(t.Context(), b("k"), b("1")); err != nil {
			t.Fatal(err)
		}
		var full []*faultdisk.Quota
		for _, d := range disks {
			full = append(full, d.Limit("/", 0))
		}
		write := func(within time.Duration) error {
			ctx, stop := context.WithTimeout(t.Context(), within)
			defer stop()
			_, err := client.Set(ctx, b("full"), make([]byte, 2<<20)) // more than is left of a segment
			return err
		}
		for _, within := range []time.Duration{time.Second, 10 * time.Second} { // while the leader waits, and when it leads no more
			if err := write(within); !errors.Is(err, arakoon.ErrFull) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "member 1 on the host at pipe") {
				t.Errorf("within %v: %v", within, err)
			}
			if got, err := client.Get(t.Context(), arakoon.Local, b("k")); err != nil || string(got) != "1" {
				t.Errorf("%q, %v", got, err)
			}
		}
		for _, q := range full {
			q.Remove()
		}
		if err := write(time.Minute); err != nil {
			t.Errorf("there is room again: %v", err)
		}
	})
}
