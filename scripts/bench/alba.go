package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/alba/embedded"
	"openvstorage/alba/policy"
	"openvstorage/arakoon/groups"
	"openvstorage/backend"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/scripts/cpu"
	"openvstorage/scripts/fio"
	"openvstorage/scripts/server"
)

// The cases of the backend run it in this process, as `ovs up` does in its own:
// ASDs, ABM and NSM in directories of the disk to be measured.

const (
	objectSize = 16 * mib
	namespace  = "bench"
	uploads    = 4 // side by side, as by default
)

// store is an ALBA backend in this process.
type store struct {
	embedded.Options
	*embedded.Backend
	ns backend.Namespace
}

// newStore makes a backend with ASDs of its own in a new directory.
func newStore(ctx context.Context, r *ring, asds int, p policy.Policy, cache int64) (*store, error) {
	dir, err := os.MkdirTemp(r.dir, "alba-")
	if err != nil {
		return nil, err
	}
	s := &store{Options: embedded.Options{
		FS: osdisk.New(), Dir: dir, ID: uuid.New(), ASDs: asds, Policies: []policy.Policy{p}, CacheBytes: cache, Uploads: uploads,
	}}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.CreateNamespace(ctx, namespace); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func (s *store) open(ctx context.Context) (err error) {
	if s.Backend, err = embedded.Open(ctx, s.Options); err == nil {
		s.ns = s.Namespace(namespace)
	}
	return err
}

// remove closes the backend and removes all that it has.
func (s *store) remove() error { return errors.Join(s.Close(), os.RemoveAll(s.Dir)) }

func objectName(i int) string { return fmt.Sprintf("object-%06d", i) }

// put uploads n objects made of data, as many side by side as the options say.
func (s *store) put(ctx context.Context, n int, data func(i int) []byte) error {
	var next atomic.Int64
	return side(s.Uploads, func(int) error {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			if err := s.ns.Put(ctx, objectName(i), data(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// side runs n workers and returns the first of their errors.
func side(n int, work func(worker int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = work(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// noise is memory that does not compress; pieces of it at different offsets
// have different checksums.
func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// albaUpload uploads 1 GiB in objects of 16 MiB. Beside it, it writes as much to a file
// of the same disk, and takes the better of direct and buffered writing. Six ASDs on
// one disk write 1.5 times what they are given, so the disk's bandwidth over 1.5 is
// what can be reached.
func albaUpload(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	const objects = gib / objectSize
	data := noise(objectSize + objects*4096)
	ours, raw := figures{Name: ours}, figures{Name: "raw disk / 1.5"}
	for range r.options.rounds {
		n, err := rawWrite(r)
		if err != nil {
			return nil, err
		}
		raw.add(one{figure: n / 1.5})
		s, err := newStore(ctx, r, 6, policy.Policy{K: 4, M: 2, C: 5, X: 6}, 0)
		if err != nil {
			return nil, err
		}
		settle()
		start := time.Now()
		err = s.put(ctx, objects, func(i int) []byte { return data[i*4096:][:objectSize] })
		ours.add(one{figure: gib / mib / time.Since(start).Seconds()})
		if err = errors.Join(err, s.remove()); err != nil {
			return nil, err
		}
	}
	return []row{{Case: c.name, Unit: c.unit, Ours: ours, Peer: &raw, Least: 0.6, Note: "1 GiB that does not compress, 4 uploads side by side, six ASDs on the disk"}}, nil
}

// rawWrite is the sequential write bandwidth of the disk in MiB/s, for data that
// are durable at the end.
func rawWrite(r *ring) (best float64, err error) {
	name := filepath.Join(r.dir, "rawwrite")
	defer os.Remove(name)
	for _, how := range [][]string{{"--direct=1", "--ioengine=libaio", "--iodepth=8"}, {"--direct=0", "--ioengine=psync"}} {
		os.Remove(name)
		settle()
		got, err := fio.Run(append(how, "--filename="+name, "--rw=write", "--bs=1m", fmt.Sprint("--size=", int64(gib)), "--end_fsync=1")...)
		if err != nil {
			return 0, err
		}
		best = max(best, got.Bytes/mib)
	}
	return best, nil
}

// readSet is what the reads of the backend touch.
const readSet = 512 * mib

// fillStore uploads the working set of reads and rests until no more is
// written.
func (s *store) fillStore(ctx context.Context) error {
	data := noise(objectSize + readSet/objectSize*4096)
	err := s.put(ctx, readSet/objectSize, func(i int) []byte { return data[i*4096:][:objectSize] })
	settle()
	return err
}

// pass reads each block of the working set once, in random order, with so many
// readers, and returns how many were read a second.
func (s *store) pass(ctx context.Context, block, readers int) (float64, error) {
	order := rand.New(rand.NewPCG(7, 7)).Perm(readSet / block)
	var next atomic.Int64
	start := time.Now()
	err := side(readers, func(int) error {
		p := make([]byte, block)
		for {
			i := int(next.Add(1)) - 1
			if i >= len(order) {
				return nil
			}
			off := order[i] * block
			if n, err := s.ns.Get(ctx, objectName(off/objectSize), p, int64(off%objectSize)); err != nil && !errors.Is(err, io.EOF) || n != block {
				return fmt.Errorf("read %d bytes at %d: %w", n, off, err)
			}
		}
	})
	return float64(len(order)) / time.Since(start).Seconds(), err
}

// albaCache reads from the fragment cache: objects that were read once before.
func albaCache(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	s, err := newStore(ctx, r, 3, policy.Policy{K: 2, M: 1, C: 2, X: 3}, 2*gib)
	if err != nil {
		return nil, err
	}
	defer s.remove()
	if err := s.fillStore(ctx); err != nil {
		return nil, err
	}
	const block = mib
	for range 100 { // what the cache's queue has no room for is dropped, until the next pass
		before := s.Stats().CacheHits
		if _, err := s.pass(ctx, block, 2); err != nil {
			return nil, err
		}
		if s.Stats().CacheHits-before >= readSet/block {
			break
		}
	}
	f := figures{Name: ours}
	before := s.Stats()
	for range r.options.rounds {
		got, err := s.pass(ctx, block, 2)
		if err != nil {
			return nil, err
		}
		f.add(one{figure: got * block / mib})
	}
	after := s.Stats()
	passed := f.median()*mib >= 1.5e9
	return []row{{Case: c.name, Unit: c.unit, Ours: f, Passed: &passed,
		Note: fmt.Sprintf("1 MiB at a time, two readers; at least 1.5 GB/s; %d of %d reads asked a disk", after.Reads-before.Reads, r.options.rounds*readSet/block)}}, nil
}

// albaCold reads 4 KiB at random from ASDs of which nothing is in memory, with
// all disks and without one, and beside it from one file.
func albaCold(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	s, err := newStore(ctx, r, 3, policy.Policy{K: 2, M: 1, C: 2, X: 3}, 0)
	if err != nil {
		return nil, err
	}
	defer s.remove()
	if err := s.fillStore(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(r.dir, "cold")
	defer os.Remove(file)
	if _, err := fio.Run("--ioengine=psync", "--filename="+file, "--rw=write", "--bs=1m", fmt.Sprint("--size=", int64(readSet)), "--end_fsync=1"); err != nil {
		return nil, err
	}
	all, less, raw := figures{Name: ours}, figures{Name: ours}, figures{Name: "one file"}
	asd := filepath.Join(s.Dir, "asd", "1")
	for range r.options.rounds {
		if err := dropCaches(); err != nil {
			return nil, err
		}
		got, err := fio.Run("--ioengine=libaio", "--direct=1", "--filename="+file, "--rw=randread", "--bs=4k", "--iodepth=32", fmt.Sprint("--size=", int64(readSet)))
		if err != nil {
			return nil, err
		}
		raw.add(iops(got))
		if err := s.coldPass(ctx, &all); err != nil {
			return nil, err
		}
		// The same without a disk: it is not there when the backend opens.
		err = s.Close()
		err = errors.Join(err, os.Rename(asd, asd+".away"), s.open(ctx))
		if err == nil {
			err = s.coldPass(ctx, &less)
		}
		if err = errors.Join(err, s.Close(), os.Rename(asd+".away", asd), s.open(ctx)); err != nil {
			return nil, err
		}
	}
	return []row{
		{Case: c.name, Unit: c.unit, Ours: all, Peer: &raw, Least: 0.5, Note: "each block once; the file by libaio, direct"},
		{Case: "  one disk of three away", Unit: c.unit, Ours: less, Peer: &all, Least: 0.5, Note: "half of the blocks are made of others"},
	}, nil
}

func (s *store) coldPass(ctx context.Context, f *figures) error {
	if err := dropCaches(); err != nil {
		return err
	}
	got, err := s.pass(ctx, 4096, 32)
	f.add(one{figure: got / 1000})
	return err
}

// albaCPU is what putting a cluster of 4 KiB costs the whole backend, from the
// caller's memory to the disk.
func albaCPU(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	const objects = gib / objectSize
	hard := noise(objectSize + objects*4096)
	soft := bytes.Clone(hard) // half of each cluster compresses away
	for off := 0; off < len(soft); off += 4096 {
		clear(soft[off : off+2048])
	}
	var rows []row
	for _, kind := range []struct {
		name string
		data []byte
	}{{"that do not compress", hard}, {"that compress by half", soft}} {
		f := figures{Name: ours}
		for range r.options.rounds {
			s, err := newStore(ctx, r, 3, policy.Policy{K: 2, M: 1, C: 2, X: 3}, 0)
			if err != nil {
				return nil, err
			}
			settle()
			before := processCPU()
			err = s.put(ctx, objects, func(i int) []byte { return kind.data[i*4096:][:objectSize] })
			f.add(one{figure: float64(processCPU()-before) / float64(time.Microsecond) / (gib / 4096)})
			if err = errors.Join(err, s.remove()); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row{Case: c.name + ", clusters " + kind.name, Unit: c.unit, Ours: f, Most: 6, Note: "2+1, user and system time of the process"})
	}
	return rows, nil
}

func processCPU() time.Duration {
	used, err := cpu.Own()
	if err != nil {
		return 0
	}
	return used
}

// fullMemory is the resident set of a server with many objects and large vDisks,
// after a start and after a load that needs all of the map cache.
func fullMemory(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	const objects, size = 100_000, 12 << 10
	if r.options.standIn {
		return []row{{Case: c.name, Note: "the stand-in has no backend of this kind"}}, nil
	}
	runner, err := r.startOvs(0)
	if err != nil {
		return nil, err
	}
	proc := runner.proc
	defer func() { proc.Kill() }()
	for i := range 10 {
		if _, err := runner.ovs.Run("vdisk", "create", disk+strconv.Itoa(i), "--size", strconv.Itoa(tib)); err != nil {
			return nil, err
		}
	}
	err = errors.Join(proc.Stop(time.Minute), addObjects(ctx, runner.ovs.Data, objects, size))
	if err == nil {
		var again *server.Process
		if again, err = server.Start(runner.ovs.Up()); err == nil {
			proc = again
		}
	}
	if err != nil {
		return nil, err
	}
	rest, load := figures{Name: ours}, figures{Name: ours}
	measure := func(f *figures) error {
		rss, err := proc.RSS()
		f.add(one{figure: float64(rss) / mib})
		return err
	}
	if err := measure(&rest); err != nil {
		return nil, err
	}
	for i := range 3 {
		if _, err := fio.Run("--ioengine=nbd", "--uri="+proc.URI(disk+strconv.Itoa(i)), "--rw=randwrite", "--bs=4k", "--iodepth=32", "--norandommap",
			fmt.Sprint("--size=", int64(tib)), "--time_based", lasting(r.options.time)); err != nil {
			return nil, err
		}
		if err := measure(&load); err != nil {
			return nil, err
		}
	}
	return []row{
		{Case: c.name, Unit: c.unit, Ours: rest, Most: 500, Note: "resident set after a start"},
		{Case: "  after random writes all over three", Unit: c.unit, Ours: load, Note: "reported; the map cache, 256 MiB, is full"},
	}, nil
}

// addObjects puts objects into the backend of a data directory that no server
// uses now.
func addObjects(ctx context.Context, data string, n, size int) (err error) {
	s := &store{Options: embedded.Options{FS: osdisk.New(), Dir: data, Uploads: 32}}
	d, err := datadir.Open(s.FS, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	s.ID = d.ID
	specs := append(embedded.Specs(), groups.Spec{Name: "registry"})
	if s.Groups, err = groups.Open(ctx, groups.Options{FS: s.FS, Dir: data, ID: d.ID, Ledger: d}, specs...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Groups.Close()) }()
	if err := s.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.CreateNamespace(ctx, namespace); err != nil {
		return err
	}
	content := noise(size + n)
	return s.put(ctx, n, func(i int) []byte { return content[i:][:size] })
}
