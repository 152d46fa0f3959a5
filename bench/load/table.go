package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"time"
)

// A report is all that a run has measured; ../report.ts makes the page of it.
type report struct {
	CPUs    int
	CPU     string
	Kernel  string
	Go      string
	Quick   bool
	Lines   []line
	Figures []figure
}

// A line is one subject of a row. Ratios are of the row's subject to this one, all rounds together, and the least and the
// greatest of a single round; none for the subject itself.
type line struct {
	Row, Measured       string
	Callers, Calls      int
	P50, P99            float64 // in milliseconds
	Rate                float64 // calls or bytes a second
	InBytes             bool
	CPU                 *float64 // seconds of the server, or of the raw client, for 1,000 calls, or for 1 GiB
	RatioP50, RatioRate *[3]float64
	Goals               []verdict
}

// A figure is a single value that is no sequence of calls.
type figure struct {
	Row, Measured, Unit string
	Value               float64
	Goals               []verdict
}

type verdict struct {
	Text string
	Met  bool
}

func newReport(quick bool) *report {
	r := &report{CPUs: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go"), Quick: quick}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, after, _ := strings.Cut(string(text), "model name\t: ")
		r.CPU, _, _ = strings.Cut(after, "\n")
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Kernel = strings.TrimSpace(string(text))
	}
	return r
}

func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// figure adds a value and says whether it is at most what was promised; 0 is no promise.
func (r *report) figure(out io.Writer, f figure, atMost float64) {
	if atMost > 0 {
		f.Goals = []verdict{{fmt.Sprintf("≤ %g %s", atMost, f.Unit), f.Value <= atMost}}
	}
	r.Figures = append(r.Figures, f)
	fmt.Fprintf(out, "| %s | | %s | | | | %.4g %s | | | | %s |\n", f.Row, f.Measured, f.Value, f.Unit, verdicts(f.Goals))
}

func printHead(out io.Writer) {
	fmt.Fprintln(out, "| Row | Callers | Measured | Calls | p50 | p99 | Rate | CPU | Ratio of p50 | Ratio of rate | Goal |")
	fmt.Fprintln(out, "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|---|")
}

// lines are one for the subject and one for each baseline, with the subject's ratio to it.
func (r row) lines(turns [][]turn) []line {
	var lines []line
	first := pooled(turns[0])
	for i, s := range append([]subject{r.subject}, r.baselines...) {
		all := pooled(turns[i])
		l := line{
			Row: cmp.Or(r.label, r.name), Callers: r.callers, Measured: s.name, Calls: len(all.latencies), InBytes: r.inBytes,
			P50: ms(all.quantile(0.5)), P99: ms(all.quantile(0.99)), Rate: all.rate(r.inBytes),
		}
		if s.server != nil {
			l.CPU = new(float64)
			*l.CPU = all.cpu.Seconds() / float64(len(all.latencies)) * 1000
			if r.inBytes {
				*l.CPU = all.cpu.Seconds() / (float64(all.bytes) / (1 << 30))
			}
		}
		if i == 0 {
			if r.p50AtMost > 0 {
				l.Goals = []verdict{{fmt.Sprintf("p50 ≤ %v", r.p50AtMost), all.quantile(0.5) <= r.p50AtMost}}
			}
		} else {
			p50 := r.ratio(turns[0], turns[i], func(t turn) float64 { return float64(t.quantile(0.5)) })
			rate := r.ratio(turns[0], turns[i], func(t turn) float64 { return t.rate(r.inBytes) })
			l.RatioP50, l.RatioRate = &p50, &rate
			l.Goals = s.goal.judge(p50, rate, first.quantile(0.99)-all.quantile(0.99))
			if above := s.goal.cpuAbove; above > 0 {
				l.Goals = append(l.Goals, verdict{fmt.Sprintf("CPU ≤ its + %g s/GiB", above), *lines[0].CPU-*l.CPU <= above})
			}
		}
		lines = append(lines, l)
	}
	return lines
}

func (l line) print(out io.Writer) {
	name, callers, p50, rate := l.Row, fmt.Sprint(l.Callers), "", ""
	if l.RatioP50 != nil {
		name, callers, p50, rate = "", "", ratioText(*l.RatioP50), ratioText(*l.RatioRate)
	}
	cpu := ""
	if l.CPU != nil {
		cpu = fmt.Sprintf("%.3g s", *l.CPU)
	}
	fmt.Fprintf(out, "| %s | %s | %s | %d | %s | %s | %s | %s | %s | %s | %s |\n", name, callers, l.Measured, l.Calls,
		milliseconds(l.P50), milliseconds(l.P99), rateText(l.Rate, l.InBytes), cpu, p50, rate, verdicts(l.Goals))
}

func (r row) ratio(subject, baseline []turn, of func(turn) float64) [3]float64 {
	result := [3]float64{of(pooled(subject)) / of(pooled(baseline)), math.Inf(1), 0}
	for round := range subject {
		one := of(subject[round]) / of(baseline[round])
		result[1] = min(result[1], one)
		result[2] = max(result[2], one)
	}
	return result
}

func ratioText(r [3]float64) string { return fmt.Sprintf("%.2f (%.2f–%.2f)", r[0], r[1], r[2]) }

// judge says what was promised and whether it held, as far as anything was.
func (g goal) judge(p50, rate [3]float64, above time.Duration) []verdict {
	var all []verdict
	if g.p50AtMost > 0 {
		all = append(all, verdict{fmt.Sprintf("p50 ≤ %.2f", g.p50AtMost), p50[0] <= g.p50AtMost})
	}
	if g.rateAtLeast > 0 {
		all = append(all, verdict{fmt.Sprintf("rate ≥ %.2f", g.rateAtLeast), rate[0] >= g.rateAtLeast})
	}
	if g.p99Above > 0 {
		all = append(all, verdict{fmt.Sprintf("p99 ≤ its + %v", g.p99Above), above <= g.p99Above})
	}
	return all
}

func verdicts(all []verdict) string {
	var texts []string
	for _, v := range all {
		if v.Met {
			texts = append(texts, v.Text+": met")
		} else {
			texts = append(texts, v.Text+": **missed**")
		}
	}
	return strings.Join(texts, ", ")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func milliseconds(ms float64) string {
	return fmt.Sprintf("%.*f ms", max(0, 2-int(math.Log10(max(ms, 1)))), ms)
}

func rateText(perSecond float64, inBytes bool) string {
	if inBytes {
		return fmt.Sprintf("%.0f MB/s", perSecond/1e6)
	}
	return fmt.Sprintf("%.*f/s", max(0, 1-int(math.Log10(max(perSecond, 1)))), perSecond)
}
