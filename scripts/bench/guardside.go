package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// buildSide is one of the two builds and its servers.
type buildSide struct {
	name string // base or new
	ring *ring  // knows the program and where data go

	mu      sync.Mutex
	servers []*contender // all that were started and not stopped
	given   bool         // up: no more start

	at      map[door]*contender
	written bool // since the vDisk was written in full
}

// newSide is a build whose servers keep their data below dir.
func newSide(name, bin, dir string, o options) *buildSide {
	r := newRing(dir, o)
	r.bin = bin
	return &buildSide{name: name, ring: r}
}

// start starts what the doors need, each with a vDisk that is written in full.
func (s *buildSide) start(doors map[door]bool) error {
	s.at, s.written = map[door]*contender{}, false
	if doors[nbdDoor] || doors[fuseDoor] {
		c, err := s.serve()
		if err != nil {
			return err
		}
		s.at[nbdDoor] = c
		s.at[fuseDoor] = &contender{name: oursFUSE, file: filepath.Join(c.mount, disk+".raw"), ovs: c.ovs}
	}
	if doors[smallDoor] {
		c, err := s.serve("--write-buffer", smallBuffer)
		if err != nil {
			return err
		}
		s.at[smallDoor] = c
	}
	return nil
}

// serve starts a server with flags that old commits know, too.
func (s *buildSide) serve(flags ...string) (*contender, error) {
	c, err := s.ring.startOvs(0, flags...)
	if err != nil {
		return nil, err
	}
	if err := s.track(c); err != nil {
		return nil, err
	}
	if err := c.create(workingSet); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.proc.Output())
	}
	return c, nil
}

// track remembers a server, so that kill finds it.
func (s *buildSide) track(c *contender) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers = append(s.servers, c)
	if s.given {
		c.proc.Kill()
		return fmt.Errorf("given up")
	}
	return nil
}

// all is the servers that were started.
func (s *buildSide) all() []*contender {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.servers)
}

// kill ends all servers, whoever waits for them.
func (s *buildSide) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = true
	for _, c := range s.servers {
		c.proc.Kill()
	}
}

// stop ends all servers and removes their data. Others may start then.
func (s *buildSide) stop() {
	s.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.servers {
		if c.mount != "" {
			_ = syscall.Unmount(c.mount, syscall.MNT_DETACH) // if it was mounted
			os.Remove(c.mount)                               // never what is in it
		}
		os.RemoveAll(c.ovs.Data)
	}
	s.servers, s.given = nil, false
}

// prepare makes the data that a load finds the same for both sides and all rounds. A
// read finds what was written last, all of it in the write buffer and in memory. With
// data of earlier loads, some might be only in the backend, or dropped from memory by
// the kernel, and either takes two to three times the CPU.
func (s *buildSide) prepare(l guardLoad) error {
	c := s.at[l.door]
	if l.reads && s.written {
		if err := errors.Join(s.at[nbdDoor].fill(workingSet), c.rest()); err != nil {
			return err
		}
		s.written = false
	}
	s.written = s.written || !l.reads && l.door != smallDoor
	switch {
	case l.cold:
		return dropCaches()
	case l.reads:
		_, err := s.at[nbdDoor].fio("--rw=read", "--bs=1m", "--iodepth=8", fmt.Sprint("--size=", int64(workingSet)))
		return err
	}
	return nil
}

// run runs a load on a server that is at rest.
func (s *buildSide) run(ctx context.Context, o options, l guardLoad) ([]float64, error) {
	c := s.at[l.door]
	got, err := l.run(ctx, o, c)
	if err != nil {
		return nil, err
	}
	for i, x := range got {
		if !(x > 0) {
			return nil, fmt.Errorf("%s: %v %s cannot be compared", l.figures[i].name, x, l.figures[i].unit)
		}
	}
	return got, nil
}
