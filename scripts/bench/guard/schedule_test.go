package guard

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// machine is a Bench without a machine: its clock moves with what it is asked
// for, and its figures are drawn.
type machine struct {
	now    time.Time
	random *rand.Rand

	truth     map[string]float64 // ratio of the speeds by figure; 1 for the others
	noise     float64            // of a pair's ratio: the standard deviation of its logarithm
	luck      float64            // the same, of what a set of servers has by chance
	failing   string             // the job that cannot be run
	disturbed func() bool

	ofServers map[string]float64 // the luck of these servers, by job
	first     map[*Job][]bool    // whether new was first, pair by pair
}

const (
	pairTime  = 3400 * time.Millisecond
	renewTime = 9 * time.Second
)

func newMachine(seed uint64, noise float64) *machine {
	return &machine{
		random: rand.New(rand.NewPCG(seed, 1)), noise: noise, luck: noise / 3, truth: map[string]float64{},
		disturbed: func() bool { return false }, first: map[*Job][]bool{},
	}
}

func (m *machine) Renew(context.Context) error {
	m.now = m.now.Add(renewTime)
	m.ofServers = map[string]float64{}
	return nil
}

func (m *machine) Pair(_ context.Context, j *Job, newFirst bool) ([]Pair, error) {
	m.now = m.now.Add(pairTime)
	if j.Name == m.failing {
		return nil, errors.New("it hangs")
	}
	if m.disturbed() {
		return nil, ErrDisturbed
	}
	m.first[j] = append(m.first[j], newFirst)
	if _, ok := m.ofServers[j.Name]; !ok {
		m.ofServers[j.Name] = m.luck * m.random.NormFloat64()
	}
	var pairs []Pair
	for _, s := range j.Series {
		truth, known := m.truth[s.Name]
		if !known {
			truth = 1
		}
		gain := math.Log(truth) + m.ofServers[j.Name]
		if s.Cost {
			gain = -gain
		}
		pairs = append(pairs, Pair{Base: 100 * math.Exp(m.run()), New: 100 * math.Exp(gain+m.run())})
	}
	return pairs, nil
}

// run is what happens to a run: one of twenty loses its CPU for a while.
func (m *machine) run() float64 {
	x := m.noise / math.Sqrt2 * m.random.NormFloat64()
	if m.noise > 0 && m.random.IntN(20) == 0 {
		x -= m.random.Float64() / 2
	}
	return x
}

// Of the runs below: what one of scripts/bench has.
const (
	loads  = 13
	budget = 11 * time.Minute
)

// guard measures loads under both settings. One load has a second figure, which
// is a cost.
func (m *machine) guard(t testing.TB, loads int, budget time.Duration) (*Plan, []*Series) {
	t.Helper()
	var jobs []*Job
	var all []*Series
	for _, setting := range []string{"0", "200000"} {
		for i := range loads {
			j := &Job{Name: fmt.Sprint("load ", i), Setting: setting}
			j.Series = append(j.Series, &Series{Figure: Figure{Name: j.Name, Unit: "kIOPS", Setting: setting}})
			if i == 1 {
				j.Series = append(j.Series, &Series{Figure: Figure{Name: "CPU", Unit: "us", Setting: setting, Cost: true}})
			}
			jobs, all = append(jobs, j), append(all, j.Series...)
		}
	}
	p := &Plan{Deadline: m.now.Add(budget), Now: func() time.Time { return m.now }, Say: func(string, ...any) {}}
	if err := p.Run(t.Context(), m, jobs); err != nil {
		t.Fatal(err)
	}
	if m.now.After(p.Deadline) {
		t.Errorf("it took %v longer than it may", m.now.Sub(p.Deadline))
	}
	return p, all
}

func verdicts(all []*Series) map[Verdict]int {
	n := map[Verdict]int{}
	for _, s := range all {
		n[s.Verdict()]++
	}
	return n
}

func TestEqualBuildsPass(t *testing.T) {
	m := newMachine(1, 0.02)
	_, all := m.guard(t, loads, budget)
	if Judge(all) != Passed {
		t.Errorf("%s: %v", Judge(all), verdicts(all))
	}
}

func TestARegressionIsFound(t *testing.T) {
	for _, figure := range []string{"load 3", "CPU"} {
		m := newMachine(2, 0.03)
		m.truth[figure] = 0.88
		_, all := m.guard(t, loads, budget)
		if Judge(all) != Worsened {
			t.Errorf("%s: %s", figure, Judge(all))
		}
		for _, s := range all {
			if v := s.Verdict(); (v == Worse || v == Doubtful) != (s.Name == figure) {
				t.Errorf("%s is worse, and %s under %s is %s", figure, s.Name, s.Setting, v)
			}
		}
	}
}

// A build that is slower in all figures is found, too. There is no time then for many
// pairs of each figure, and few pairs prove nothing.
func TestASlowerBuildIsFound(t *testing.T) {
	for _, budget := range []time.Duration{10 * time.Minute, budget} {
		m := newMachine(3, 0.03)
		for i := range loads {
			m.truth[fmt.Sprint("load ", i)] = 0.85
		}
		if _, all := m.guard(t, loads, budget); Judge(all) != Worsened {
			t.Errorf("%s in %v: %v", Judge(all), budget, verdicts(all))
		}
	}
}

// On a machine as noisy as this nothing can be said, and nothing is.
func TestNoiseIsNeitherRightNorWrong(t *testing.T) {
	m := newMachine(4, 0.4)
	_, all := m.guard(t, loads, budget)
	if Judge(all) != Undecided {
		t.Errorf("%s: %v", Judge(all), verdicts(all))
	}
}

func TestADisturbedPairDoesNotCount(t *testing.T) {
	m := newMachine(5, 0.02)
	n := 0
	m.disturbed = func() bool { n++; return n%3 == 0 }
	p, all := m.guard(t, 2, budget)
	if Judge(all) != Passed || p.Disturbed != n/3 || p.Measured != n-n/3 {
		t.Errorf("%s, %d disturbed and %d measured of %d", Judge(all), p.Disturbed, p.Measured, n)
	}
	m.disturbed = func() bool { return true }
	if p, all = m.guard(t, 2, budget); Judge(all) != Undecided || p.Measured != 0 {
		t.Errorf("%s with %d pairs", Judge(all), p.Measured)
	}
}

// A load that one of the builds cannot run is a failure; the others go on.
func TestALoadThatFails(t *testing.T) {
	m := newMachine(6, 0.02)
	m.failing = "load 2"
	_, all := m.guard(t, loads, budget)
	if n := verdicts(all); Judge(all) != Worsened || n[Failed] != 2 || n[OK]+n[NoSign] != len(all)-2 {
		t.Errorf("%s: %v", Judge(all), n)
	}
}

func TestWhoIsFirstChanges(t *testing.T) {
	m := newMachine(7, 0.02)
	m.guard(t, 3, budget)
	for j, first := range m.first {
		for i, newFirst := range first {
			if newFirst != (i%2 == 1) {
				t.Errorf("%s: pair %d has new first: %v", j.Name, i, newFirst)
			}
		}
	}
}

// What is settled costs no more time, and a suspect gets most of what is left.
func TestTimeGoesToWhatIsNotSettled(t *testing.T) {
	m := newMachine(8, 0.02)
	m.truth["load 0"] = 0.93
	_, all := m.guard(t, loads, budget)
	for _, s := range all {
		switch n := len(s.Pairs); {
		case s.Name == "load 0" && n < 10:
			t.Errorf("the suspect under %s has %d pairs", s.Setting, n)
		case s.Verdict() == OK && s.Name != "load 0" && n > suspectPairs:
			t.Errorf("%s is %s and has %d pairs", s.Name, s.Verdict(), n)
		}
	}
}

func TestNoTimeIsNoPass(t *testing.T) {
	m := newMachine(9, 0.02)
	if _, all := m.guard(t, loads, time.Minute); Judge(all) != Undecided || verdicts(all)[TooFew] != len(all) {
		t.Errorf("%s: %v", Judge(all), verdicts(all))
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := newMachine(10, 0.02)
	p := &Plan{Deadline: m.now.Add(budget), Now: func() time.Time { return m.now }, Say: func(string, ...any) {}}
	if err := p.Run(ctx, m, []*Job{{Series: []*Series{series()}}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// How often the guard is right, by the noise of a pair. The table is the one in
// docs/performance.md; the bounds are what the guard promises.
func TestHowOftenItIsRight(t *testing.T) {
	const tries = 100
	for _, tt := range []struct {
		noise, truth              float64
		failMin, failMax, passMax int
	}{
		{0.03, 1, 0, 2, tries},
		{0.03, 0.97, 0, 12, tries},
		{0.03, 0.93, 90, tries, 4},
		{0.03, 0.9, 95, tries, 0},
		{0.06, 1, 0, 4, tries},
		{0.06, 0.93, 50, tries, 12},
		{0.06, 0.9, 85, tries, 2},
		{0.06, 0.85, 93, tries, 0},
		{0.12, 1, 0, 5, tries},
		{0.12, 0.9, 20, tries, 5},
		{0.12, 0.8, 88, tries, 0},
	} {
		t.Run(fmt.Sprintf("noise %.2f, one figure at %.2f", tt.noise, tt.truth), func(t *testing.T) {
			n := map[Outcome]int{}
			for seed := range uint64(tries) {
				m := newMachine(seed, tt.noise)
				m.truth["load 3"] = tt.truth
				_, all := m.guard(t, loads, budget)
				n[Judge(all)]++
			}
			t.Logf("passed %.1f %%, undecided %.1f %%, failed %.1f %%", 100*float64(n[Passed])/tries, 100*float64(n[Undecided])/tries, 100*float64(n[Worsened])/tries)
			if n[Worsened] < tt.failMin || n[Worsened] > tt.failMax || n[Passed] > tt.passMax {
				t.Errorf("%v; want %d to %d failed, and %d passed at most", n, tt.failMin, tt.failMax, tt.passMax)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	worse, noisy, ok := series(times(12, 0.8)...), series(0.5, 0.5, 1, 1, 1, 1), series(times(6, 0.98, 1)...)
	worse.Name, noisy.Name, ok.Name = "slow (1)", "wild", "calm"
	for _, tt := range []struct {
		all       []*Series
		disturbed int
		want      Outcome
		has, not  []string
	}{
		{[]*Series{ok}, 0, Passed, []string{"PASSED: 1 figures, 1 ok"}, []string{"FIGURES"}},
		{[]*Series{ok, worse}, 0, Worsened, []string{"FAILED", "WORSE: slow (1) (0) 0.800 [0.800..0.800]"}, []string{"FIGURES", "calm"}},
		{[]*Series{ok, noisy}, 0, Undecided, []string{"UNDECIDED", "too noisy: wild", "FIGURES='^(wild)$'"}, nil},
		{[]*Series{noisy}, 0, Undecided, []string{"too noisy: wild"}, []string{"FIGURES"}}, // all of them had all of the time
		{[]*Series{ok, noisy}, 99, Undecided, []string{"quiet"}, []string{"FIGURES"}},
	} {
		var out strings.Builder
		got := Summary(&out, tt.all, 50, tt.disturbed)
		Print(&out, tt.all)
		if got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
		summary, table, _ := strings.Cut(out.String(), "figure  ")
		for _, s := range tt.all {
			i, _ := s.Interval()
			if s.Ratio() != i.Median || !strings.Contains(table, fmt.Sprintf("%.3f", i.Median)) {
				t.Errorf("%s: the ratio is %v, and in the interval %v", s.Name, s.Ratio(), i.Median)
			}
		}
		for _, text := range tt.has {
			if !strings.Contains(summary, text) {
				t.Errorf("no %q in\n%s", text, summary)
			}
		}
		for _, text := range tt.not {
			if strings.Contains(summary, text) {
				t.Errorf("%q in\n%s", text, summary)
			}
		}
	}
}
