package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestNBDInfo: what nbdinfo sees of an export.
func TestNBDInfo(t *testing.T) {
	need(t, "nbdinfo")
	uri, socket, export := newDisk(t, gib)
	var info struct {
		Structured bool `json:"structured"`
		Exports    []map[string]any
	}
	must(t, json.Unmarshal([]byte(sh(t, "nbdinfo", "--json", uri)), &info))
	if !info.Structured {
		t.Error("no structured replies")
	}
	if len(info.Exports) != 1 {
		t.Fatalf("%d exports, want 1", len(info.Exports))
	}
	e := info.Exports[0]
	for _, can := range []string{"can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_multi_conn", "can_cache", "can_df"} {
		// The peers are not asked for what they lack.
		if e[can] != true && (*standIn == "" || can == "can_flush") {
			t.Errorf("%s is %v", can, e[can])
		}
	}
	if e["is_read_only"] != false {
		t.Errorf("is_read_only is %v", e["is_read_only"])
	}
	if e["export-size"] != float64(gib) {
		t.Errorf("export-size is %v, want %d", e["export-size"], int64(gib))
	}
	if contexts, _ := e["contexts"].([]any); !slices.Contains(contexts, any("base:allocation")) {
		t.Errorf("contexts are %v, without base:allocation", e["contexts"])
	}

	list := sh(t, "nbdinfo", "--list", "--json", "nbd+unix:///?socket="+socket)
	if !strings.Contains(list, `"export-name": "`+export+`"`) {
		t.Errorf("--list does not name %q:\n%s", export, list)
	}
}

// extent is one line of nbdinfo --map.
type extent struct {
	Offset, Length int64
	Type           int // bit 0: hole, bit 1: zero
}

func allocation(t *testing.T, uri string) []extent {
	t.Helper()
	var m []extent
	must(t, json.Unmarshal([]byte(sh(t, "nbdinfo", "--map", "--json", uri)), &m))
	return m
}

// allocated is how many bytes are not holes.
func allocated(m []extent) (n int64) {
	for _, e := range m {
		if e.Type&1 == 0 {
			n += e.Length
		}
	}
	return n
}

// TestMap: block status tells what was written and what was trimmed.
func TestMap(t *testing.T) {
	need(t, "nbdinfo", "qemu-io")
	uri, _, _ := newDisk(t, gib)
	if got := allocated(allocation(t, uri)); got != 0 {
		t.Errorf("%d bytes of an empty disk are allocated", got)
	}
	sh(t, "qemu-io", "-f", "raw", "-c", "write -P 1 1M 1M", "-c", "write -P 2 900M 64k", "-c", "discard 1M 512k", "-c", "flush", uri)
	want := []extent{
		{0, 1*mib + 512<<10, 3},
		{1*mib + 512<<10, 512 << 10, 0},
		{2 * mib, 898 * mib, 3},
		{900 * mib, 64 << 10, 0},
		{900*mib + 64<<10, 124*mib - 64<<10, 3},
	}
	if got := allocation(t, uri); !slices.Equal(got, want) {
		t.Errorf("map is\n%v, want\n%v", got, want)
	}
}
