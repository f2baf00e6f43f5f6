package e2e

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

// TestNBDInfo: what nbdinfo sees of an export.
func TestNBDInfo(t *testing.T) { eachClients(t, testNBDInfo) }

func testNBDInfo(t *testing.T) {
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
func TestMap(t *testing.T) { eachClients(t, testMap) }

func testMap(t *testing.T) {
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

// TestVastRequests: one request trims half of a disk of 16 TiB, another zeroes the
// other half, and one request tells what is where. None takes long, and a killed server
// remembers them. A client without extended headers needs thousands of requests, and
// sees the same.
func TestVastRequests(t *testing.T) {
	need(t, "nbdinfo")
	s := up(t)
	uri := s.create("disk", 16*tib)
	connect := func() *nbdclient.Client {
		c, err := nbdclient.Dial(t.Context(), "unix", s.Socket, nbdclient.Options{Export: "disk"})
		must(t, err)
		t.Cleanup(c.Abort)
		if !c.Extended() || c.Flags()&nbd.BlockStatusPayload == 0 || c.Size() != 16*tib {
			t.Fatalf("extended headers %v, flags %#x, %d bytes", c.Extended(), c.Flags(), c.Size())
		}
		return c
	}
	c := connect()
	marks := []int64{0, 5 * gib, 8*tib - 4096, 8 * tib, 13*tib + 12345<<12, 16*tib - 4096}
	for _, off := range marks {
		_, err := c.WriteAt(bytes.Repeat([]byte("mark"), 1024), off)
		must(t, err)
	}
	quick := func(what string, fn func() error) {
		t.Helper()
		start := time.Now()
		must(t, fn())
		took := time.Since(start)
		t.Logf("%s: %v", what, took)
		if took > time.Second {
			t.Errorf("%s took %v, want less than a second", what, took)
		}
	}
	check := func(what string, left []int64, want ...extent) {
		t.Helper()
		var es []device.Extent
		quick(what+": block status of 16 TiB", func() (err error) {
			es, err = c.BlockStatus(0, 16*tib)
			return err
		})
		var got []extent
		at := int64(0)
		for _, e := range es {
			x := extent{Offset: at, Length: e.Length}
			if e.Hole {
				x.Type |= 1
			}
			if e.Zero {
				x.Type |= 2
			}
			got, at = append(got, x), at+e.Length
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s: extents are\n%v, want\n%v", what, got, want)
		}
		p := make([]byte, 4096)
		for _, off := range marks {
			_, err := c.ReadAt(p, off)
			must(t, err)
			if marked := bytes.Equal(p, bytes.Repeat([]byte("mark"), 1024)); marked != slices.Contains(left, off) || !marked && !bytes.Equal(p, make([]byte, 4096)) {
				t.Fatalf("%s: at %d is %.8q", what, off, p)
			}
		}
	}
	third := int64(13*tib + 12345<<12)
	quick("trim of 8 TiB", func() error { return c.Trim(0, 8*tib) })
	check("trimmed", marks[3:], extent{0, 8 * tib, 3}, extent{8 * tib, 4096, 0}, extent{8*tib + 4096, third - 8*tib - 4096, 3},
		extent{third, 4096, 0}, extent{third + 4096, 16*tib - third - 8192, 3}, extent{16*tib - 4096, 4096, 0})
	quick("zero of 8 TiB", func() error { return c.Zero(8*tib, 8*tib, nbd.FlagNoHole|nbd.FlagFUA) })
	halves := []extent{{0, 8 * tib, 3}, {8 * tib, 8 * tib, 2}}
	check("zeroed", nil, halves...)
	quick("cache of 16 TiB", func() error { return c.Cache(0, 16*tib) })

	s.Kill()
	s.start()
	c = connect()
	check("after a kill", nil, halves...)
	if got := allocation(t, uri); !slices.Equal(got, halves) {
		t.Errorf("nbdinfo sees\n%v, want\n%v", got, halves)
	}
	quick("trim of 16 TiB", func() error {
		return c.Do(&nbdclient.Request{Type: nbd.CmdTrim, Flags: nbd.FlagFUA, Length: 16 * tib})
	})
	check("all trimmed", nil, extent{0, 16 * tib, 3})
}
