package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kvclient"
	"openvstorage/scripts/group"
)

// shared is how many clients share a connection.
const shared = 16

type ovs struct {
	group   *group.Group
	profile string
	watcher []*kvclient.Client
	watched int
}

func startOvs(dir, profile string) (side, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	program, err := group.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	g, err := group.Local(ctx, program, dir, 3)
	if err != nil {
		return nil, err
	}
	return &ovs{group: g, profile: profile}, nil
}

func (o *ovs) name() string { return "ovs" }

type ovsCaller struct{ c *kvclient.Client }

func (c ovsCaller) put(ctx context.Context, key string, value []byte) error {
	_, err := c.c.Set(ctx, []byte(key), value)
	return err
}

func (c ovsCaller) get(ctx context.Context, key string) error {
	_, err := c.c.Get(ctx, arakoon.Consistent, []byte(key))
	return err
}

func (o *ovs) clients(count int) ([]caller, func(), error) {
	var list []caller
	var open []*kvclient.Client
	stop := func() {
		for _, c := range open {
			c.Close()
		}
	}
	for i := range count {
		if i%shared == 0 {
			c, err := o.group.Client(kvclient.Options{})
			if err != nil {
				stop()
				return nil, nil, err
			}
			open = append(open, c)
		}
		list = append(list, ovsCaller{open[len(open)-1]})
	}
	if o.profile != "" {
		go o.profiles(fmt.Sprintf("%d", count))
	}
	return list, stop, nil
}

// profiles writes where the leader's and a follower's CPU goes for two seconds.
func (o *ovs) profiles(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	leader, err := o.group.Leader(ctx)
	if err != nil {
		return
	}
	for _, m := range o.group.Members() {
		role := "follower"
		if m == leader {
			role = "leader"
		}
		go func() {
			r, err := http.NewRequest(http.MethodGet, "http://member/debug/pprof/profile?seconds=3", nil)
			if err != nil {
				return
			}
			a, err := m.HTTP().Do(r)
			if err != nil {
				return
			}
			defer a.Body.Close()
			f, err := os.Create(filepath.Join(o.profile, fmt.Sprintf("%s-%s.pprof", role, name)))
			if err != nil {
				return
			}
			defer f.Close()
			_, _ = io.Copy(f, a.Body)
		}()
	}
}

func (o *ovs) cpu() (sum time.Duration) {
	for _, m := range o.group.Members() {
		t, _ := m.Process().CPU()
		sum += t
	}
	return sum
}

// watch spreads watches over clients as etcd's are spread over connections.
func (o *ovs) watch(ctx context.Context, prefix string, seen func([]byte)) error {
	if o.watched%100 == 0 {
		c, err := o.group.Client(kvclient.Options{})
		if err != nil {
			return err
		}
		o.watcher = append(o.watcher, c)
	}
	o.watched++
	c := o.watcher[len(o.watcher)-1]
	began := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		first := true
		failed <- c.Watch(ctx, []byte(prefix), 0, func(e arakoon.Events) error {
			if first {
				close(began)
				first = false
			}
			for _, one := range e.List {
				seen(one.Value)
			}
			return nil
		})
	}()
	select {
	case <-began:
		return nil
	case err := <-failed:
		return err
	}
}

func (o *ovs) close() {
	for _, c := range o.watcher {
		c.Close()
	}
	o.group.Close()
}
