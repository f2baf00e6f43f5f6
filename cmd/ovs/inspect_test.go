package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/backend/local"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/format"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
)

var sampleVolume = uuid.MustParse("11111111-2222-4333-8444-555555555555")

// sampleSCO has two clusters and a commit that covers them, and a footer if
// sealed; if not, what an earlier use of the file left.
func sampleSCO(sealed bool) []byte {
	h := sco.Header{Volume: sampleVolume, Number: 7, Incarnation: 99, Capacity: 8, Epoch: 2, FirstSeq: 41}
	b := sco.AppendHeader(nil, h)
	b = append(b, bytes.Repeat([]byte{1}, sco.ClusterSize)...)
	b = append(b, bytes.Repeat([]byte{2}, sco.ClusterSize)...)
	sums := []uint32{sco.Sum(b[sco.ClusterSize : 2*sco.ClusterSize]), sco.Sum(b[2*sco.ClusterSize:])}
	entries := tlog.AppendWrite(nil, tlog.SeedOf(5), 41, 1000, sco.At(0, 7, 1), sums)
	b = sco.AppendCommit(b, h.Incarnation, sco.Commit{Index: 3, Round: 1, FirstSeq: 41, Seq: 41, Durable: 40, Entries: entries})
	if !sealed {
		return append(b, bytes.Repeat([]byte{0xee}, 4*sco.ClusterSize)...)
	}
	return sco.AppendFooter(b, h, sco.Blocks{
		Sums: append(sums, 0), Addrs: []uint64{1000, 1001, sco.NoAddress}, Seqs: []uint64{41, 41, 0},
	}, 3, 4)
}

func sampleTLog() []byte {
	seed := tlog.SeedOf(5)
	b := tlog.AppendHeader(nil, tlog.Header{Volume: sampleVolume, ID: 3, Incarnation: 5, Epoch: 2, FirstSeq: 41})
	b = tlog.AppendWrite(b, seed, 41, 1000, sco.At(0, 7, 1), []uint32{1, 2})
	b = tlog.AppendEntry(b, seed, tlog.Entry{Kind: tlog.KindTrim, Seq: 42, Addr: 5, Run: 10})
	s := tlog.Snapshot{ID: sampleVolume, Created: 1, Name: "monday"}
	b = tlog.AppendEntry(b, seed, tlog.Entry{Kind: tlog.KindSnapshot, Seq: 43, Payload: s.Payload()})
	return tlog.AppendEntry(b, seed, tlog.Entry{Kind: tlog.KindSeal, Seq: 43})
}

func sampleCatalog(t interface{ Fatal(...any) }) []byte {
	root, _, err := catalog.Encode(&catalog.Catalog{
		Volume: sampleVolume, Epoch: 2, Generation: 4, Size: 10 << 30, Created: time.Unix(1_700_000_000, 0).UTC(),
		NextSCO: 8, NextTLog: 4, NextObject: 1, StoredSeq: 43,
		Epochs:    []catalog.EpochStart{{Epoch: 2, Base: 40}},
		Origins:   []catalog.Origin{{Volume: sampleVolume}},
		TLogs:     []catalog.TLog{{Number: 3, FirstSeq: 1, LastSeq: 43, Size: 4096}},
		Snapshots: []catalog.Snapshot{{ID: uuid.UUID{1}, Name: "monday", Seq: 43, Created: time.Unix(1_700_000_000, 0).UTC(), Size: 10 << 30, NextSCO: 8, Meta: "by=hand"}},
		Children:  []catalog.Child{{Volume: uuid.UUID{2}, Snapshot: uuid.UUID{1}, Unstored: true}},
		Config:    []catalog.Setting{{ID: 7, Optional: true, Value: "on"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// writeSamples puts a file of each format into dir.
func writeSamples(dir string, t interface{ Fatal(...any) }) error {
	damaged := sampleSCO(true)
	damaged[2*sco.ClusterSize+9] ^= 1
	for name, b := range map[string][]byte{
		"sealed.sco": sampleSCO(true), "open.sco": sampleSCO(false), "damaged.sco": damaged,
		"sealed.tlog": sampleTLog(), "sample.catalog": sampleCatalog(t), "newer.sco": newerRecord(sampleSCO(true)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func TestCheckSCO(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		good := sampleSCO(sealed)
		r, err := checkSCO(good, sealed)
		if err != nil || len(r.Damage) > 0 || r.Clusters != 2 || len(r.Commits) != 1 || r.Sealed != sealed || r.LowSeq != 41 || r.HighSeq != 41 {
			t.Errorf("sealed %v: %+v, %v", sealed, r, err)
		}
		// A flipped bit in a cluster is found, wherever the checksum is kept.
		for _, at := range []int{sco.ClusterSize, 2*sco.ClusterSize + 100, 3*sco.ClusterSize - 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 0x10
			if r, err := checkSCO(bad, sealed); err != nil || len(r.Damage) != 1 || r.Clusters != 1 {
				t.Errorf("sealed %v, bit at %d: %+v, %v", sealed, at, r, err)
			}
		}
	}
	if r, err := checkSCO(sampleSCO(false), true); err != nil || len(r.Damage) == 0 {
		t.Errorf("an object that is not sealed passes: %+v, %v", r, err)
	}
}

// A file of the local backend is seen for what it holds.
func TestObjectOfTheLocalBackend(t *testing.T) {
	dir := t.TempDir()
	store, err := local.Open(osdisk.New(), dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := store.CreateNamespace(ctx, "ns"); err != nil {
		t.Fatal(err)
	}
	if err := store.Namespace("ns").Put(ctx, "sco-000000007", sampleSCO(true)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	b, stored, err := readObject(filepath.Join(dir, "ns", "sco-000000007"), sco.SizeMax)
	if err != nil || !stored || !bytes.Equal(b, sampleSCO(true)) {
		t.Errorf("%d bytes, %v, %v", len(b), stored, err)
	}
	name := filepath.Join(dir, "plain")
	if err := os.WriteFile(name, sampleTLog(), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, stored, err := readObject(name, 1<<20); err != nil || stored || !bytes.Equal(b, sampleTLog()) {
		t.Errorf("%d bytes, %v, %v", len(b), stored, err)
	}
}

func TestCheckTLog(t *testing.T) {
	b := sampleTLog()
	r, err := checkTLog(bytes.NewReader(b), int64(len(b)))
	if err != nil || !r.Sealed || len(r.Entries) != 4 || r.End != int64(len(b)) || !strings.Contains(r.Entries[2].Detail, "monday") {
		t.Errorf("%+v, %v", r, err)
	}
	b[len(b)-1] ^= 1
	if r, err := checkTLog(bytes.NewReader(b), int64(len(b))); err != nil || r.Sealed || len(r.Entries) != 3 {
		t.Errorf("with a bad seal: %+v, %v", r, err)
	}
}

// A file that has grown sparse, as a disk's repair may leave it, does not go into
// memory: a TLog is read as far as it is one, anything else is refused.
func TestInspectGrownFiles(t *testing.T) {
	const grown = 6 << 30
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(name, b, 0o600), os.Truncate(name, grown)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	o, err := openObject(file("grown.tlog", sampleTLog()[:len(sampleTLog())-tlog.EntrySize])) // without its seal
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if r, err := checkTLog(o, o.size); err != nil || len(r.Entries) != 3 || r.Sealed {
		t.Errorf("%+v, %v", r, err)
	}
	for name, limit := range map[string]int64{file("grown.sco", sampleSCO(true)): sco.SizeMax, file("grown.catalog", sampleCatalog(t)): catalog.RootMax} {
		if _, _, err := readObject(name, limit); !errors.Is(err, format.ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d MiB of memory for files that hold next to nothing", n>>20)
	}
}
