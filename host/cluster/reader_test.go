package cluster_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/host/cluster"
	"openvstorage/host/roster"
	"openvstorage/internal/control"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/wire"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

// While the first host is up and its group answers nothing, one that has joined starts
// all the same, and by what it has seen.
func TestFirstHostHangs(t *testing.T) {
	hangs, free := make(chan struct{}), make(chan struct{})
	store := trusttest.NewStore()
	store.Fail = func(string) error {
		select {
		case <-hangs:
			<-free
		default:
		}
		return nil
	}
	one := firstAt(t, newMachine(t), store)
	two, m := join(t, one)
	closeHost(t, two)
	t.Cleanup(func() { close(free) })
	close(hangs)
	o := m.options(t, "")
	o.Wait = time.Millisecond
	again, err := cluster.Resume(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost(t, again)
	if again.ID() != two.ID() {
		t.Errorf("it is host %s", again.ID())
	}
}

// A book that could not be written is written when the hosts are looked at again, though
// they are the same by then.
func TestBookIsWrittenAgain(t *testing.T) {
	one, _, _ := first(t)
	faults := faultdisk.New(crashdisk.New())
	m := newMachine(t)
	m.open(t, faults)
	two, err := cluster.Resume(t.Context(), m.options(t, token(t, one)))
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost(t, two)
	full := faults.Inject(faultdisk.Rule{Ops: faultdisk.Rename, Err: errors.New("no room")})
	two.Learn(t.Context())
	full.Remove()
	two.Learn(t.Context())
	book, err := roster.ReadBook(m.fs, "/d/trust/book", one.Cluster())
	if err != nil || len(book.Hosts) != 2 {
		t.Errorf("%+v, %v", book, err)
	}
}

// Names are the same in capitals: a host that listens on one can make tokens.
func TestAddressInCapitals(t *testing.T) {
	m := newMachine(t)
	m.address = "LocalHost:0"
	one := firstAt(t, m, trusttest.NewStore())
	two, _ := join(t, one)
	if a := one.Self().Address; !strings.HasPrefix(a, "localhost:") || two.Cluster() != one.Cluster() {
		t.Errorf("it is at %s", a)
	}
}

// No host reads the sealed key of the authority, by itself or among other keys.
func TestNobodyReadsTheAuthoritysKey(t *testing.T) {
	one, _, _ := first(t)
	two, _ := join(t, one)
	if n, err := two.Keys(t.Context(), "trust/h"); err != nil || n != 2 {
		t.Errorf("%d hosts, %v", n, err)
	}
	for _, prefix := range []string{"trust/a", "trust/", "t", ""} {
		if n, err := two.Keys(t.Context(), prefix); err == nil {
			t.Errorf("%d keys below %q were read", n, prefix)
		}
	}
}

// A host that has joined starts though the file of its token is gone. A directory that
// has not joined does not become anything without it.
func TestTokenFileIsGone(t *testing.T) {
	one, _, _ := first(t)
	two, m := join(t, one)
	closeHost(t, two)
	again, err := cluster.Resume(t.Context(), m.options(t, "@/run/token"))
	if err != nil {
		t.Fatal(err)
	}
	closeHost(t, again)
	fresh := newMachine(t)
	_, err = cluster.Resume(t.Context(), fresh.options(t, "@/run/token"))
	says(t, "a directory that has not joined", err, fs.ErrNotExist, "/run/token")
}

// A person joins no host, even with the secret of a token and another host's key.
func TestPersonDoesNotJoin(t *testing.T) {
	one, _, _ := first(t)
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := trust.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := manage(one).Issue(t.Context(), control.IssueRequest{Name: "eve", Role: "nbd", Days: 1, Request: request})
	if err != nil {
		t.Fatal(err)
	}
	m := &trust.Material{Key: key}
	if m.Certificate, err = x509.ParseCertificate(made.Certificate); err != nil {
		t.Fatal(err)
	}
	if m.Authority, err = x509.ParseCertificate(made.Authority); err != nil {
		t.Fatal(err)
	}
	line, err := trust.ParseToken(token(t, one))
	if err != nil {
		t.Fatal(err)
	}
	q, err := line.Request(key, uuid.New(), []string{"eve.example"})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(config *tls.Config) uint16 {
		c, err := wire.Dial(t.Context(), wire.DialOptions{
			Network: "tcp", Address: one.Self().Address, Service: trust.ProtocolJoin, TLS: config,
			Identity: wire.Identity{Cluster: one.Cluster(), Host: q.Host, Level: cluster.Level},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r, err := c.Call(t.Context(), wire.Request{Op: 1, Body: wire.Wrap(nil, q.Encode()), Sum: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		return r.Status
	}
	if status := ask(m.TLS(trust.Dial{Protocol: trust.ProtocolJoin}, nil)); status != wire.StatusService {
		t.Errorf("a person has joined: status %d", status)
	}
	if status := ask(line.TLS(nil)); status != 0 {
		t.Errorf("somebody without a certificate has not: status %d", status)
	}
}
