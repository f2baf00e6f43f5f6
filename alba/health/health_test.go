package health

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDisk is the table of the states of a disk, row by row.
func TestDisk(t *testing.T) {
	hangs := &Trouble{Reason: "it does not answer", Since: time.Unix(7, 0)}
	for _, row := range []struct {
		what   string
		disk   Disk
		state  State
		gone   bool
		well   bool
		reason string
	}{
		{"the zero value", Disk{}, OK, false, true, ""},
		{"room for what may come", Disk{Room: 9, Need: 9}, OK, false, true, ""},
		{"slow", Disk{Slow: hangs}, Slow, false, false, "does not answer"},
		{"damaged", Disk{Absent: 2, Slow: hangs}, Damaged, false, false, "2 fragments and recovery records that it had"},
		{"its identity is bad", Disk{Trouble: "identity: CRC", Absent: 2}, Damaged, false, false, "would not open it: identity: CRC"},
		{"its identity is bad, and it is full", Disk{Trouble: "identity: CRC", Full: true}, Full, false, false, "left"},
		{"it says that it is full", Disk{Full: true, Room: 5, Need: 1}, Full, false, false, "left for puts"},
		{"it refused a put", Disk{Refused: true, Room: 5, Need: 1}, Full, false, false, "refused"},
		{"no room for a fragment", Disk{Room: 1 << 20, Need: 8 << 20}, Full, false, false, "1024 KiB are left"},
		{"full and slow", Disk{Full: true, Slow: hangs}, Full, false, false, "left"},
		{"draining", Disk{Draining: true, Fragments: 3}, Draining, false, true, "3 fragments"},
		{"draining and full", Disk{Draining: true, Full: true}, Draining, false, true, "to be moved"},
		{"draining and read-only", Disk{Draining: true, ReadOnly: "EROFS"}, ReadOnly, false, false, "EROFS"},
		{"read-only", Disk{ReadOnly: "EROFS", Full: true}, ReadOnly, false, false, "EROFS"},
		{"failing writes", Disk{Failing: hangs, ReadOnly: "EIO"}, Failing, false, false, "does not answer"},
		{"failing reads too", Disk{Failing: hangs, Unread: true}, Failing, true, false, "does not answer"},
		{"silent", Disk{Silent: "statfs: EIO"}, Failing, true, false, "statfs"},
		{"unopened", Disk{Missing: "EMFILE", Unopened: true}, Unopened, true, false, "EMFILE"},
		{"missing", Disk{Missing: "no ASD here", Failing: hangs, Draining: true}, Missing, true, false, "no ASD"},
		{"lost", Disk{Lost: true, Missing: "no ASD here"}, Lost, true, false, "given up"},
	} {
		is := row.disk.Judge()
		if is.State != row.state || is.Gone != row.gone || is.Well() != row.well || !strings.Contains(is.Reason, row.reason) || (row.reason == "") != (is.Reason == "") {
			t.Errorf("%s: %+v", row.what, is)
		}
		if want := is.State == Slow || is.State == Failing && row.disk.Failing != nil; want != is.Since.Equal(time.Unix(7, 0)) {
			t.Errorf("%s: since %v", row.what, is.Since)
		}
		if takes := is.State == OK || is.State == Slow || is.State == Damaged; is.Takes() != takes {
			t.Errorf("%s: takes %v", row.what, is.Takes())
		}
		if !slices.Contains(DiskStates, is.State) {
			t.Errorf("%s: %s is not in the list of states", row.what, is.State)
		}
	}
}

func TestFragment(t *testing.T) {
	for _, row := range []struct {
		f    Fragment
		text string
	}{
		{Fragment{Found: true, Size: 5, Want: 5}, "ok"},
		{Fragment{Nowhere: true, DiskLost: true}, "not stored yet"},
		{Fragment{DiskLost: true}, "its disk is lost"},
		{Fragment{Err: "disk 1 is missing"}, "disk 1 is missing"},
		{Fragment{Want: 5}, "its disk does not have it"},
		{Fragment{Found: true, Size: 4, Want: 5}, "it has 4 bytes"},
		{Fragment{Found: true, Size: 5, Want: 5, Bad: true}, "a read found it bad"},
	} {
		if ok, text := row.f.Judge(); text != row.text || ok != (text == "ok") {
			t.Errorf("%+v: %v, %s", row.f, ok, text)
		}
	}
}

func TestObject(t *testing.T) {
	for _, row := range []struct {
		o       Object
		state   State
		mayLose int
	}{
		{Object{}, OK, 0},
		{Object{Width: 3}, OK, 0}, // it is in its manifest
		{Object{K: 2, Width: 3, Readable: 4}, OK, 2},
		{Object{K: 2, Width: 3, Readable: 3}, OK, 1},
		{Object{K: 2, Width: 3, Readable: 2}, Degraded, 0},
		{Object{K: 2, Width: 3, Readable: 1}, Unreadable, -1},
		{Object{K: 1, Width: 1, Readable: 0}, Unreadable, -1},
	} {
		if s := row.o.Judge(); s != row.state || row.o.MayLose() != row.mayLose {
			t.Errorf("%+v: %s, may lose %d", row.o, s, row.o.MayLose())
		}
	}
}

func TestNamespace(t *testing.T) {
	for _, row := range []struct {
		what  string
		n     Namespace
		state State
	}{
		{"whole", Namespace{Coded: true, MayLose: 1}, OK},
		{"nothing in it, or only what is in manifests", Namespace{MayLose: -1}, OK},
		{"below full width", Namespace{Coded: true, Narrow: 1}, Degraded},
		{"waiting for a repair", Namespace{Coded: true, MayLose: 1, Waiting: 1}, Degraded},
		{"on a disk that is gone", Namespace{Coded: true, Spread: true}, Degraded},
		{"too little on disks that are there", Namespace{Coded: true, MayLose: -1}, Unreadable},
		{"a read failed", Namespace{Coded: true, MayLose: 1, Failed: 1}, Unreadable},
		{"not known to the NSM", Namespace{NoNSM: true}, Unknown},
		{"not known to the ABM, with a vDisk", Namespace{NoABM: true, Wanted: true}, Unknown},
		{"not known to the ABM, and nobody's", Namespace{NoABM: true}, OK},
	} {
		if is := row.n.Judge(); is.State != row.state || (is.State == OK) != (is.Reason == "") || !slices.Contains(NamespaceStates, is.State) {
			t.Errorf("%s: %+v", row.what, is)
		}
	}
}

func TestGroup(t *testing.T) {
	for _, row := range []struct {
		g     Group
		state State
	}{
		{Group{}, OK},
		{Group{Older: true}, Older},
		{Group{Waits: true, Older: true}, Full},
		{Group{Failed: "sync", Waits: true}, Failed},
	} {
		if is := row.g.Judge(); is.State != row.state || (is.State == OK) != (is.Reason == "") || !slices.Contains(GroupStates, is.State) {
			t.Errorf("%+v: %+v", row.g, is)
		}
	}
}

func TestBackend(t *testing.T) {
	disk := func(d Disk) Backend { return Backend{Disks: []DiskNamed{{Number: 1, Place: "/d", Disk: d}}} }
	space := func(n Namespace) Backend { return Backend{Namespaces: []Namespace{n}} }
	group := func(g Group) Backend { return Backend{Groups: []Group{g}} }
	for _, row := range []struct {
		what  string
		b     Backend
		state State
		says  string
	}{
		{"all well", disk(Disk{}), OK, ""},
		{"a disk is drained", disk(Disk{Draining: true}), OK, ""},
		{"a disk is full", disk(Disk{Full: true}), Degraded, "disk 1 (/d) is full: "},
		{"a disk is slow", disk(Disk{Slow: &Trouble{Reason: "r"}}), Degraded, "is slow: r"},
		{"a disk is damaged", disk(Disk{Absent: 1}), Degraded, "is damaged: "},
		{"the next start would not open a disk", disk(Disk{Trouble: "r"}), Degraded, "is damaged: the next start would not open it: r"},
		{"a disk is read-only", disk(Disk{ReadOnly: "r"}), Degraded, "is read-only: r"},
		{"a disk fails", disk(Disk{Failing: &Trouble{Reason: "r"}, Unread: true}), Degraded, "is failing: r"},
		{"a disk is unopened", disk(Disk{Missing: "r", Unopened: true}), Degraded, "is unopened: r"},
		{"a disk is missing", disk(Disk{Missing: "r"}), Degraded, "is missing: r"},
		{"a disk is lost", disk(Disk{Lost: true}), Degraded, "is lost: "},
		{"an object is below full width", space(Namespace{Coded: true, Narrow: 2}), Degraded, "2 objects are below full width"},
		{"an object bears no more", space(Namespace{Coded: true}), OK, ""},
		{"an object has too few fragments", space(Namespace{Coded: true, MayLose: -1}), Unreadable, "too few fragments"},
		{"a namespace is unknown", space(Namespace{Name: "n", NoNSM: true}), Unreadable, "n is not known to the NSM"},
		{"a manager has failed", group(Group{Name: "g", Failed: "r", Reads: true}), Unreadable, "group g: the member here has failed"},
		{"the registry has failed", group(Group{Name: "g", Failed: "r"}), Degraded, "group g: the member here has failed"},
		{"a group waits", group(Group{Name: "g", Waits: true, Reads: true}), Degraded, "waits for room"},
		{"an older copy was accepted", Backend{Groups: []Group{{Older: true}}, Suspended: "s"}, Degraded, "s"},
		{"an older copy, and nothing is suspended", group(Group{Name: "g", Older: true}), OK, ""},
		{"fragments are known to be absent", Backend{Waiting: 1}, Degraded, "known to be bad or absent"},
		{"no disk takes a fragment", Backend{NoPlace: 1, Namespaces: []Namespace{{Narrow: 1}}}, Degraded, "1 object lacks a disk"},
		{"nor of a disk that is drained", Backend{NoPlace: 1, Disks: []DiskNamed{{Disk: Disk{Draining: true}}}}, Degraded, "1 object lacks a disk"},
		{"a survey said so that is over", Backend{NoPlace: 1}, OK, ""},
		{"reads fail", Backend{Failed: 1, Example: "object o"}, Unreadable, "one of them: object o"},
		{"nothing takes a write", Backend{NoRoom: "r"}, Degraded, "r"},
		{"a collection stopped", Backend{Alarms: []string{"a"}}, Degraded, "a"},
	} {
		is := row.b.Judge()
		if is.State != row.state || !strings.Contains(strings.Join(is.Reasons, "\n"), row.says) || (is.State == OK) != (len(is.Reasons) == 0) {
			t.Errorf("%s: %+v", row.what, is)
		}
	}
	// The gravest counts, and all are said.
	all := Backend{Failed: 1, NoPlace: 1, Disks: []DiskNamed{{Disk: Disk{Full: true}}}}
	if is := all.Judge(); is.State != Unreadable || len(is.Reasons) != 3 {
		t.Errorf("%+v", is)
	}
}

// What is left of a file system counts once, however many disks are on it.
func TestTotal(t *testing.T) {
	for _, row := range []struct {
		disks          []Room
		used, capacity uint64
	}{
		{nil, 0, 0},
		{[]Room{{Used: 1, Capacity: 10}, {Used: 2, Capacity: 10}}, 3, 20},
		{[]Room{{1, 11, 7}, {2, 12, 7}, {3, 13, 7}}, 6, 16},
		{[]Room{{1, 11, 7}, {2, 12, 8}, {3, 13, 7}}, 6, 26},
		{[]Room{{Used: 5, Capacity: 3}}, 5, 5},
		{[]Room{{5, 5, 7}, {1, 9, 7}}, 6, 14},
	} {
		if used, capacity := Total(row.disks); used != row.used || capacity != row.capacity {
			t.Errorf("%v: %d of %d", row.disks, used, capacity)
		}
	}
}

// The tables of the documentation have each state once, in the order of the lists,
// and no other.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for head, want := range map[string][]State{
		"| A disk is |": DiskStates, "| Health |": BackendStates, "| A namespace is |": NamespaceStates, "| An object is |": ObjectStates, "| A group is |": GroupStates,
	} {
		_, table, found := strings.Cut(string(page), "\n"+head)
		if !found {
			t.Errorf("there is no table %q", head)
			continue
		}
		table, _, _ = strings.Cut(table, "\n\n")
		var got []State
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
			got = append(got, State(m[1]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, and the states are %v", head, got, want)
		}
	}
}
