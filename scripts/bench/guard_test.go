package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"openvstorage/scripts/bench/guard"
	"openvstorage/scripts/cpu"
)

func TestParseGuard(t *testing.T) {
	for _, tool := range []string{"fio", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	for _, tt := range []struct {
		args []string
		err  string
	}{
		{[]string{"-base", "HEAD"}, ""},
		{[]string{"-base", "HEAD", "-figures", "FUSE", "-time", "3m", "-haltpoll", ""}, ""},
		{nil, "-base"},
		{[]string{"-base", "HEAD", "-figures", "("}, "-figures"},
		{[]string{"-base", "HEAD", "FUSE"}, "no flag"},
		{[]string{"-base", "HEAD", "-time", "1s"}, "ten runs"},
	} {
		_, err := parseGuard(tt.args)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.err)
		}
	}
}

func TestGuardStatus(t *testing.T) {
	for _, tt := range []struct {
		outcome guard.Outcome
		err     error
		want    int
	}{
		{guard.Passed, nil, 0},
		{guard.Worsened, nil, 1},
		{guard.Undecided, nil, 3},
		{guard.Passed, errors.New("interrupted"), 1},
		{"", errors.New("it does not build"), 1},
		{"", nil, 3},
	} {
		if got := guardStatus(tt.outcome, tt.err); got != tt.want {
			t.Errorf("%q, %v: %d, want %d", tt.outcome, tt.err, got, tt.want)
		}
	}
}

// Each figure has a name of its own, and FIGURES takes those of a load apart.
func TestGuardJobs(t *testing.T) {
	jobs, of := guardJobs(guardLoads(), regexp.MustCompile(""), []string{"0", "200000"})
	seen := map[string]bool{}
	for _, j := range jobs {
		for i, s := range j.Series {
			name := s.Name + " " + s.Setting
			if f := of[j].figures[of[j].figure[i]]; f.name != s.Name || seen[name] || s.Setting != j.Setting {
				t.Errorf("%s is there twice, or is %s", name, f.name)
			}
			seen[name] = true
		}
	}
	if len(jobs) != 2*len(guardLoads()) || len(seen) != len(jobs)+2 {
		t.Errorf("%d jobs and %d figures of %d loads", len(jobs), len(seen), len(guardLoads()))
	}
	jobs, of = guardJobs(guardLoads(), regexp.MustCompile("CPU a 4k read"), []string{"0"})
	if len(jobs) != 1 || len(jobs[0].Series) != 1 || jobs[0].Series[0].Unit != "us" || of[jobs[0]].figure[0] != 1 {
		t.Errorf("%+v", jobs)
	}
	if jobs, _ = guardJobs(guardLoads(), regexp.MustCompile("nothing"), []string{"0"}); len(jobs) != 0 {
		t.Errorf("%d jobs match nothing", len(jobs))
	}
}

// fake is a bench whose new build has some speed, and whose clock moves by what
// is measured.
type fake struct {
	now   time.Time
	speed func(setting string) float64
}

func (f *fake) Renew(context.Context) error { return nil }

func (f *fake) Pair(_ context.Context, j *guard.Job, _ bool) ([]guard.Pair, error) {
	f.now = f.now.Add(time.Second)
	pairs := make([]guard.Pair, len(j.Series))
	for i, s := range j.Series {
		pairs[i] = guard.Pair{Base: 50, New: 50 * f.speed(j.Setting)}
		if s.Cost {
			pairs[i] = guard.Pair{Base: pairs[i].New, New: pairs[i].Base}
		}
	}
	return pairs, nil
}

// The way from made-up measurements to the exit status and the file.
func TestGuardFromPairsToStatus(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, tt := range []struct {
		name   string
		speed  func(setting string) float64
		status int
		says   string
	}{
		{"the same", func(string) float64 { return 1 }, 0, "PASSED: 6 figures, 6 ok"},
		{"a little slower", func(string) float64 { return 0.97 }, 0, "PASSED"},
		{"under one setting only", func(setting string) float64 { return map[string]float64{"0": 1, "200000": 0.9}[setting] }, 1, "WORSE: server CPU a 4k read (200000)"},
		{"a tenth slower", func(string) float64 { return 0.9 }, 1, "FAILED"},
		{"noise", func(string) float64 { return math.Exp(random.NormFloat64()) }, 3, "UNDECIDED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			loads := guardLoads()[:2]
			jobs, _ := guardJobs(loads, regexp.MustCompile(""), []string{"0", "200000"})
			f := &fake{speed: tt.speed}
			plan := guard.Plan{Deadline: f.now.Add(2 * time.Minute), Now: func() time.Time { return f.now }, Say: t.Logf}
			if err := plan.Run(t.Context(), f, jobs); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			file := filepath.Join(t.TempDir(), "guard.json")
			res := guardResult{Measured: plan.Measured, Disturbed: plan.Disturbed}
			if err := res.finish(&out, file, jobs); err != nil {
				t.Fatal(err)
			}
			if got := guardStatus(res.Outcome, nil); got != tt.status || !strings.Contains(out.String(), tt.says) {
				t.Errorf("status %d, want %d, and %q in\n%s", got, tt.status, tt.says, &out)
			}
			var read struct {
				Outcome string
				Figures []struct {
					Name, Verdict string
					Pairs         []guard.Pair
				}
			}
			p, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(p, &read)
			}
			if err != nil || read.Outcome != string(res.Outcome) || len(read.Figures) != 6 || len(read.Figures[2].Pairs) < guard.MinPairs {
				t.Errorf("%v: %+v", err, read)
			}
		})
	}
}

func TestByFigure(t *testing.T) {
	jobs, _ := guardJobs(guardLoads()[:2], regexp.MustCompile(""), []string{"0", "200000"})
	var got []string
	for _, s := range byFigure(jobs) {
		got = append(got, s.Unit+" "+s.Setting)
	}
	if text := strings.Join(got, ", "); text != "MiB/s 0, MiB/s 200000, kIOPS 0, kIOPS 200000, us 0, us 200000" {
		t.Error(text)
	}
}

func TestOthers(t *testing.T) {
	before := spent{machine: cpu.Times{Busy: 100 * cpu.Tick, Total: 1000 * cpu.Tick}, ours: 5 * time.Second}
	for _, tt := range []struct {
		busy, total time.Duration // in ticks
		ours        time.Duration
		want        float64
	}{
		{0, 200, 0, 0},
		{100, 200, time.Second, 0},
		{150, 200, time.Second, 0.25},
		{200, 200, 0, 1},
		{0, 0, 0, 0},
	} {
		after := spent{machine: cpu.Times{Busy: (100 + tt.busy) * cpu.Tick, Total: (1000 + tt.total) * cpu.Tick}, ours: 5*time.Second + tt.ours}
		if got := after.others(before); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// Both programs are built, each from its own source, and nothing is left behind.
func TestBuilds(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	repo, dir, ctx := t.TempDir(), t.TempDir(), t.Context()
	program := func(says string) {
		t.Helper()
		for name, text := range map[string]string{
			"go.mod": "module openvstorage\n\ngo 1.26\n", "cmd/ovs/main.go": "package main\n\nfunc main() { print(\"" + says + "\") }\n",
		} {
			file := filepath.Join(repo, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(args ...string) {
		t.Helper()
		if _, err := git(ctx, repo, args...); err != nil {
			t.Fatal(err)
		}
	}
	run("init", "--quiet")
	commit := func(subject string) {
		t.Helper()
		run("add", ".")
		run("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", subject)
	}
	program("first")
	commit("First")
	program("second")
	commit("Second")
	program("third")

	base, err := buildBase(ctx, repo, "HEAD~1", dir)
	if err != nil {
		t.Fatal(err)
	}
	now, err := buildPresent(ctx, repo, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		b               build
		says, described string
	}{{base, "first", "First"}, {now, "third", "Second, with 1 files changed and not committed"}} {
		out, err := exec.Command(tt.b.bin).CombinedOutput()
		if err != nil || string(out) != tt.says || !strings.HasSuffix(tt.b.String(), tt.described) {
			t.Errorf("%v says %q, %v; want %q, %q", tt.b, out, err, tt.says, tt.described)
		}
	}
	if equal, err := same(base.bin, now.bin); equal || err != nil {
		t.Errorf("the programs are equal: %v, %v", equal, err)
	}
	if equal, err := same(base.bin, base.bin); !equal || err != nil {
		t.Errorf("a program is equal to itself: %v, %v", equal, err)
	}
	trees, err := git(ctx, repo, "worktree", "list")
	if err != nil || strings.Contains(trees, "\n") {
		t.Errorf("left behind: %s, %v", trees, err)
	}
	if _, err := buildBase(ctx, repo, "nowhere", dir); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a commit that there is not: %v", err)
	}
}
