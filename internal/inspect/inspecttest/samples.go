// Package inspecttest has files of each format that is inspected, whole and damaged.
package inspecttest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
)

// volume is the vDisk of all samples.
var volume = uuid.MustParse("11111111-2222-4333-8444-555555555555")

// SCO has two clusters and a commit that covers them, and a footer if
// sealed; if not, what an earlier use of the file left.
func SCO(sealed bool) []byte {
	h := sco.Header{Volume: volume, Number: 7, Incarnation: 99, Capacity: 8, Epoch: 2, FirstSeq: 41}
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

// TLog has a write, a trim, a snapshot, and a seal.
func TLog() []byte {
	seed := tlog.SeedOf(5)
	b := tlog.AppendHeader(nil, tlog.Header{Volume: volume, ID: 3, Incarnation: 5, Epoch: 2, FirstSeq: 41})
	b = tlog.AppendWrite(b, seed, 41, 1000, sco.At(0, 7, 1), []uint32{1, 2})
	b = tlog.AppendEntry(b, seed, tlog.Entry{Kind: tlog.KindTrim, Seq: 42, Addr: 5, Run: 10})
	s := tlog.Snapshot{ID: volume, Created: 1, Name: "monday"}
	b = tlog.AppendEntry(b, seed, tlog.Entry{Kind: tlog.KindSnapshot, Seq: 43, Payload: s.Payload()})
	return tlog.AppendEntry(b, seed, tlog.Entry{Kind: tlog.KindSeal, Seq: 43})
}

// Catalog lists a snapshot and a TLog.
func Catalog(t testing.TB) []byte {
	root, _, err := catalog.Encode(&catalog.Catalog{
		Volume: volume, Epoch: 2, Generation: 4, Size: 10 << 30, Created: time.Unix(1_700_000_000, 0).UTC(),
		NextSCO: 8, NextTLog: 4, NextObject: 1, StoredSeq: 43,
		Epochs:    []catalog.EpochStart{{Epoch: 2, Base: 40}},
		Origins:   []catalog.Origin{{Volume: volume}},
		TLogs:     []catalog.TLog{{Number: 3, FirstSeq: 1, LastSeq: 43, Size: 4096}},
		Snapshots: []catalog.Snapshot{{ID: uuid.UUID{1}, Name: "monday", Seq: 43, Created: time.Unix(1_700_000_000, 0).UTC(), Size: 10 << 30, NextSCO: 8}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Write puts a file of each format into dir.
func Write(dir string, t testing.TB) error {
	damaged := SCO(true)
	damaged[2*sco.ClusterSize+9] ^= 1
	for name, b := range map[string][]byte{
		"sealed.sco": SCO(true), "open.sco": SCO(false), "damaged.sco": damaged,
		"sealed.tlog": TLog(), "sample.catalog": Catalog(t), "newer.sco": Newer(SCO(true)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
