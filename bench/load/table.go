package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

func printHead(out io.Writer) {
	fmt.Fprintln(out, "| Row | Callers | Measured | Calls | p50 | p99 | Rate | Ratio of p50 | Ratio of rate | Goal |")
	fmt.Fprintln(out, "|---|--:|---|--:|--:|--:|--:|--:|--:|---|")
}

// print writes a line for the subject and one for each baseline, with the subject's ratio to it.
func (r row) print(out io.Writer, turns [][]turn) {
	for i, s := range append([]subject{r.subject}, r.baselines...) {
		all := pooled(turns[i])
		name, callers, p50, rate, met := "", "", "", "", ""
		if i == 0 {
			name, callers = r.name, fmt.Sprint(r.callers)
		} else {
			byP50 := r.ratio(turns[0], turns[i], func(t turn) float64 { return float64(t.quantile(0.5)) })
			byRate := r.ratio(turns[0], turns[i], func(t turn) float64 { return t.rate(r.inBytes) })
			p50, rate, met = byP50.String(), byRate.String(), s.goal.judge(byP50, byRate)
		}
		fmt.Fprintf(out, "| %s | %s | %s | %d | %s | %s | %s | %s | %s | %s |\n", name, callers, s.name, len(all.latencies),
			milliseconds(all.quantile(0.5)), milliseconds(all.quantile(0.99)), rateText(all.rate(r.inBytes), r.inBytes),
			p50, rate, met)
	}
}

// A ratio of all rounds together, with the least and the greatest that a single round showed.
type ratio struct{ all, least, greatest float64 }

func (r row) ratio(subject, baseline []turn, of func(turn) float64) ratio {
	result := ratio{all: of(pooled(subject)) / of(pooled(baseline)), least: math.Inf(1)}
	for round := range subject {
		one := of(subject[round]) / of(baseline[round])
		result.least = min(result.least, one)
		result.greatest = max(result.greatest, one)
	}
	return result
}

func (r ratio) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", r.all, r.least, r.greatest) }

// judge says what was promised and whether it held, as far as anything was.
func (g goal) judge(p50, rate ratio) string {
	var texts []string
	say := func(what string, met bool) {
		if met {
			texts = append(texts, what+": met")
		} else {
			texts = append(texts, what+": **missed**")
		}
	}
	if g.p50AtMost > 0 {
		say(fmt.Sprintf("p50 ≤ %.2f", g.p50AtMost), p50.all <= g.p50AtMost)
	}
	if g.rateAtLeast > 0 {
		say(fmt.Sprintf("rate ≥ %.2f", g.rateAtLeast), rate.all >= g.rateAtLeast)
	}
	return strings.Join(texts, ", ")
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	return fmt.Sprintf("%.*f ms", max(0, 2-int(math.Log10(max(ms, 1)))), ms)
}

func rateText(perSecond float64, inBytes bool) string {
	if inBytes {
		return fmt.Sprintf("%.0f MB/s", perSecond/1e6)
	}
	return fmt.Sprintf("%.*f/s", max(0, 1-int(math.Log10(max(perSecond, 1)))), perSecond)
}
