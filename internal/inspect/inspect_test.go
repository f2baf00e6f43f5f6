package inspect

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"openvstorage/backend/local"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/inspect/inspecttest"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
)

func TestCheckSCO(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		good := inspecttest.SCO(sealed)
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
	if r, err := checkSCO(inspecttest.SCO(false), true); err != nil || len(r.Damage) == 0 {
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
	if err := store.Namespace("ns").Put(ctx, "sco-000000007", inspecttest.SCO(true)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	b, stored, err := readObject(filepath.Join(dir, "ns", "sco-000000007"), sco.SizeMax)
	if err != nil || !stored || !bytes.Equal(b, inspecttest.SCO(true)) {
		t.Errorf("%d bytes, %v, %v", len(b), stored, err)
	}
	name := filepath.Join(dir, "plain")
	if err := os.WriteFile(name, inspecttest.TLog(), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, stored, err := readObject(name, 1<<20); err != nil || stored || !bytes.Equal(b, inspecttest.TLog()) {
		t.Errorf("%d bytes, %v, %v", len(b), stored, err)
	}
}

func TestCheckTLog(t *testing.T) {
	b := inspecttest.TLog()
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
	o, err := openObject(file("grown.tlog", inspecttest.TLog()[:len(inspecttest.TLog())-tlog.EntrySize])) // without its seal
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if r, err := checkTLog(o, o.size); err != nil || len(r.Entries) != 3 || r.Sealed {
		t.Errorf("%+v, %v", r, err)
	}
	for name, limit := range map[string]int64{file("grown.sco", inspecttest.SCO(true)): sco.SizeMax, file("grown.catalog", inspecttest.Catalog(t)): catalog.RootMax} {
		if _, _, err := readObject(name, limit); !errors.Is(err, format.ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d MiB of memory for files that hold next to nothing", n>>20)
	}
}
