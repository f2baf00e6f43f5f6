package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"openvstorage/scripts/group"
	"openvstorage/scripts/server"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// serveEtcd is one server of etcd as a process: its defaults, but for where it listens.
func serveEtcd(args []string) {
	flags := flag.NewFlagSet("serve-etcd", flag.ExitOnError)
	name := flags.String("name", "", "")
	dir := flags.String("dir", "", "")
	peer := flags.String("peer", "", "")
	client := flags.String("client", "", "")
	all := flags.String("all", "", "")
	_ = flags.Parse(args)
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel, c.InitialCluster = *name, *dir, "error", *all
	p, c1 := url.URL{Scheme: "http", Host: *peer}, url.URL{Scheme: "http", Host: *client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{p}, []url.URL{p}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{c1}, []url.URL{c1}
	c.QuotaBackendBytes = 8 << 30
	e, err := embed.StartEtcd(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {
	case <-e.Server.ReadyNotify():
		fmt.Println("ready")
	case err := <-e.Err():
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	<-signals
	e.Close()
}

type etcd struct {
	processes []*server.Process
	leader    string
	watcher   []*clientv3.Client
	watched   int
}

func startEtcd(dir, _ string) (side, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var clients, peers, all []string
	for i := range 3 {
		c, err1 := group.Free()
		p, err2 := group.Free()
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("addresses: %w, %w", err1, err2)
		}
		clients, peers, all = append(clients, c), append(peers, p), append(all, fmt.Sprintf("m%d=http://%s", i, p))
	}
	e := &etcd{}
	for i := range 3 {
		p, err := server.Launch(server.Command{Name: "etcd", ReadyLine: "ready", Args: []string{
			self, "serve-etcd", "-name", fmt.Sprintf("m%d", i), "-dir", filepath.Join(dir, fmt.Sprint(i)), "-peer", peers[i], "-client", clients[i], "-all", strings.Join(all, ","),
		}})
		if err != nil {
			e.close()
			return nil, err
		}
		e.processes = append(e.processes, p)
	}
	for _, p := range e.processes {
		if err := p.WaitReady(time.Minute); err != nil {
			e.close()
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, at := range clients {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{at}})
		if err != nil {
			e.close()
			return nil, err
		}
		s, err := c.Status(ctx, at)
		_ = c.Close()
		if err == nil && s.Leader == s.Header.MemberId {
			e.leader = at
		}
	}
	if e.leader == "" {
		e.close()
		return nil, fmt.Errorf("no server leads")
	}
	return e, nil
}

func (e *etcd) name() string { return "etcd" }

type etcdCaller struct{ c *clientv3.Client }

func (c etcdCaller) put(ctx context.Context, key string, value []byte) error {
	_, err := c.c.Put(ctx, key, string(value))
	return err
}

func (c etcdCaller) get(ctx context.Context, key string) error {
	_, err := c.c.Get(ctx, key)
	return err
}

func (e *etcd) clients(count int) ([]caller, func(), error) {
	var list []caller
	var open []*clientv3.Client
	stop := func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	for i := range count {
		if i%shared == 0 {
			c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.leader}})
			if err != nil {
				stop()
				return nil, nil, err
			}
			open = append(open, c)
		}
		list = append(list, etcdCaller{open[len(open)-1]})
	}
	return list, stop, nil
}

func (e *etcd) cpu() (sum time.Duration) {
	for _, p := range e.processes {
		t, _ := p.CPU()
		sum += t
	}
	return sum
}

func (e *etcd) watch(ctx context.Context, prefix string, seen func([]byte)) error {
	if e.watched%100 == 0 {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.leader}})
		if err != nil {
			return err
		}
		e.watcher = append(e.watcher, c)
	}
	e.watched++
	events := e.watcher[len(e.watcher)-1].Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if first := <-events; !first.Created {
		return fmt.Errorf("watch: %w", first.Err())
	}
	go func() {
		for r := range events {
			for _, one := range r.Events {
				seen(one.Kv.Value)
			}
		}
	}()
	return nil
}

func (e *etcd) close() {
	for _, c := range e.watcher {
		_ = c.Close()
	}
	for _, p := range e.processes {
		p.Kill()
	}
}
