package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"sync"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/trust"
)

// book is where the hosts are, as this host knows it, and its file.
type book struct {
	writing   sync.Mutex // over the file, and unwritten
	unwritten bool       // the last write failed: the file is older than the field now

	mu  sync.Mutex
	now roster.Book
}

func (b *book) hosts() []roster.Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now.Hosts
}

// targets are where the config group may be reached: hosts that hold it, else whoever a
// token named.
func (b *book) targets(self uuid.UUID, config []Place) (list []target) {
	for _, p := range config {
		if p.Host != self {
			for _, a := range p.Addresses {
				list = append(list, target{p.Host, a})
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.now.Hosts {
		if !h.Config || h.ID == self {
			continue
		}
		for _, a := range h.Addresses {
			if t := (target{h.ID, a}); !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
	}
	for _, a := range b.now.Seeds {
		if !slices.ContainsFunc(list, func(t target) bool { return t.address == a }) {
			list = append(list, target{address: a})
		}
	}
	return list
}

// know makes hosts the book of a host that keeps none: the first one has the records.
func (b *book) know(hosts []roster.Host) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now.Hosts = hosts
}

// everybody are the addresses of all hosts, first of those that hold the config group.
func (b *book) everybody(self uuid.UUID, config []Place) []target {
	list := b.targets(self, config)
	for _, h := range b.hosts() {
		if h.ID == self || slices.ContainsFunc(list, func(t target) bool { return t.host == h.ID }) {
			continue
		}
		for _, a := range h.Addresses {
			list = append(list, target{h.ID, a})
		}
	}
	return list
}

// set makes hosts the book, and writes it if the file does not have them.
func (b *book) set(of *Host, hosts []roster.Host) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	same := reflect.DeepEqual(b.now.Hosts, hosts)
	b.now.Hosts = hosts
	next := b.now
	b.mu.Unlock()
	if same && !b.unwritten {
		return nil
	}
	err := of.o.writeBook(of.cluster, next)
	if b.unwritten = err != nil; err != nil {
		return fmt.Errorf("the addresses of hosts are not kept for the next start: %w", err)
	}
	return nil
}

func (o *Options) writeBook(cluster uuid.UUID, b roster.Book) error {
	incarnation, err := draw()
	if err != nil {
		return err
	}
	return roster.WriteBook(o.FS, o.file("book"), cluster, incarnation, b)
}

// read reads the file. One that is absent or damaged is no truth of its own: addresses of a
// token will do, if there is one.
func (b *book) read(of *Host, seeds []string) error {
	now, err := roster.ReadBook(of.o.FS, of.o.file("book"), of.cluster)
	if err != nil {
		if len(seeds) == 0 {
			return fmt.Errorf("where the other hosts are: %w: start again with --join and any token of the cluster, which says where", err)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			of.faults.tell(err)
		}
	}
	for _, s := range seeds {
		if !slices.Contains(now.Seeds, s) {
			now.Seeds = append(now.Seeds, s)
		}
	}
	if extra := len(now.Seeds) - roster.AddressesMax; extra > 0 {
		now.Seeds = now.Seeds[extra:]
	}
	b.now = now
	if len(seeds) == 0 {
		return nil
	}
	return of.o.writeBook(of.cluster, now)
}

func seedsOf(t *trust.Token) roster.Book { return roster.Book{Seeds: t.Addresses} }
