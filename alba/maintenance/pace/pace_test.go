package pace_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/maintenance/pace"
)

const mib = 1 << 20

// disk is what clients and maintenance share, in bytes a second. It is unfair to clients:
// maintenance gets all that it asks for, and clients the rest.
type disk struct{ most float64 }

func (d disk) serve(clients, maintenance float64) (c, m float64) {
	m = min(maintenance, d.most)
	return min(clients, d.most-m), m
}

// run has clients who want so much in each window, and returns what they got of what they
// would have had alone, and what maintenance moved in a second.
func run(c *pace.Controller, d disk, windows int, wants func(window int) float64) (kept, moved float64) {
	var got, alone float64
	for i := range windows {
		rate, limited := c.Rate()
		if !limited {
			rate = 1e12
		}
		want := wants(i)
		cl, m := d.serve(want, rate)
		c.Passed(pace.Window, uint64(cl), uint64(m))
		got += cl
		alone += min(want, d.most)
		moved += m
	}
	if alone == 0 {
		return 1, moved / float64(windows)
	}
	return got / alone, moved / float64(windows)
}

// Clients keep at least 0.7 of their speed, whoever they are, and maintenance takes what they
// leave.
func TestClientsKeepTheirSpeed(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for what, c := range map[string]struct {
		disk  disk
		wants func(int) float64
		least float64 // that maintenance is to move, of the disk
	}{
		"nobody":                   {disk{200 * mib}, func(int) float64 { return 0 }, 0.9},
		"clients that want all":    {disk{200 * mib}, func(int) float64 { return 1e12 }, 0.08},
		"a slow disk":              {disk{40 * mib}, func(int) float64 { return 1e12 }, 0.08},
		"a fast disk":              {disk{3000 * mib}, func(int) float64 { return 1e12 }, 0.08},
		"clients that want little": {disk{200 * mib}, func(int) float64 { return 10 * mib }, 0.5},
		"clients that want half":   {disk{200 * mib}, func(int) float64 { return 100 * mib }, 0.3},
		"clients of all moods":     {disk{200 * mib}, func(int) float64 { return (60 + 80*r.Float64()) * mib }, 0.05},
		"clients now and then": {disk{200 * mib}, func(i int) float64 {
			if i/60%2 == 0 {
				return 0
			}
			return 1e12
		}, 0.3},
	} {
		t.Run(what, func(t *testing.T) {
			ctl := pace.NewController(4*mib, 0)
			run(ctl, c.disk, 200, c.wants)
			kept, moved := run(ctl, c.disk, 2000, c.wants)
			t.Logf("clients keep %.2f, maintenance moves %.2f of the disk", kept, moved/c.disk.most)
			if kept < 0.7 {
				t.Errorf("clients keep %.2f of their speed", kept)
			}
			if moved < c.least*c.disk.most {
				t.Errorf("maintenance moves %.2f of the disk", moved/c.disk.most)
			}
		})
	}
}

// Clients who come while maintenance takes all that there is have most of their speed back
// within three windows.
func TestClientsComeSuddenly(t *testing.T) {
	c, d := pace.NewController(4*mib, 0), disk{200 * mib}
	run(c, d, 20, func(int) float64 { return 0 })
	if _, limited := c.Rate(); limited {
		t.Fatal("maintenance is held back while there is nobody")
	}
	run(c, disk{250 * mib}, 1, func(int) float64 { return 1e12 })
	// The disk of this one second left clients a little, or nobody would know of them.
	c.Passed(pace.Window, 2*mib, 200*mib)
	run(c, d, 2, func(int) float64 { return 1e12 })
	if kept, _ := run(c, d, 5, func(int) float64 { return 1e12 }); kept < 0.7 {
		t.Errorf("clients keep %.2f", kept)
	}
}

// Neither bound is crossed.
func TestBounds(t *testing.T) {
	c := pace.NewController(4*mib, 50*mib)
	r := rand.New(rand.NewPCG(8, 8))
	for range 10_000 {
		rate, limited := c.Rate()
		if !limited || rate > 50*mib || rate != 0 && rate < 4*mib {
			t.Fatal(rate, limited)
		}
		c.Passed(time.Duration(r.Int64N(int64(3*time.Second))), r.Uint64N(400*mib), r.Uint64N(50*mib))
	}
}

// Wait keeps to the rate, and ends with its context.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(pace.Options{Most: 10 * mib})
		begin := time.Now()
		for range 100 {
			if err := p.Wait(t.Context(), mib); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin).Round(100 * time.Millisecond); took != 9900*time.Millisecond {
			t.Errorf("100 MiB at 10 MiB/s took %v", took)
		}
		if err := p.Wait(t.Context(), 1<<40); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Wait(ctx, 1); err == nil {
			t.Error("it does not end")
		}
	})
}

// Beside clients maintenance rests in one window of eight, and goes on after that.
func TestWaitBesideClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := pace.New(pace.Options{Clients: func() uint64 { return uint64(time.Since(begin).Seconds() * 50 * mib) }})
		for time.Since(begin) < 10*time.Second {
			if err := p.Wait(t.Context(), 64<<10); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		longest := time.Duration(0)
		for time.Since(begin) < 60*time.Second {
			before := time.Now()
			if err := p.Wait(t.Context(), 64<<10); err != nil {
				t.Fatal(err)
			}
			longest = max(longest, time.Since(before))
			time.Sleep(10 * time.Millisecond)
		}
		if longest < pace.Window*9/10 || longest > 2*pace.Window {
			t.Errorf("the longest wait was %v", longest)
		}
	})
}
