package main

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"

	"firstbell/bench/bell"
	"firstbell/bench/lms"
)

// chartData is what happened when, in equal steps from the first student on.
type chartData struct {
	first   time.Time
	step    time.Duration
	n       int           // steps
	lasted  time.Duration // until the last answer
	marks   []chartMark
	bands   []chartBand
	arrived []float64 // per second, all of them
	pressed []float64
	receipt []float64
	sent    []float64
	failed  []float64
	origin  []float64
	lessons []float64 // of origin
	inside  []float64 // most requests inside the origin at once
	p50     []float64 // of check-ins, in milliseconds; 0: none answered
	p99     []float64
	pageP99 []float64
}

// chartMark is a moment with a name.
type chartMark struct {
	At   float64 // in per cent of the width
	Name string
}

// chartBand is a stretch of time with a name.
type chartBand struct {
	From, Width float64 // in per cent of the width
	Name        string
}

// chartPoints is how many steps a chart has at most.
const chartPoints = 240

// chartDataOf draws the bell's and the origin's time together.
func chartDataOf(p *bell.Player, origin *lms.Server, m bell.Morning, kills []outage) chartData {
	t := p.Timeline()
	steps := t.Steps()
	per := max(1, (len(steps)+chartPoints-1)/chartPoints)
	c := chartData{first: m.First, step: time.Duration(per) * t.Width(), n: max(2, (len(steps)+per-1)/per)}
	c.lasted = time.Duration(len(steps)) * t.Width()
	// The end of the lesson is on the paper, also when all were done before it.
	c.n = max(c.n, int(m.Ends.Sub(m.First)/c.step)+1)
	sum := func(value func(bell.Step) int64) []float64 {
		out := make([]float64, c.n)
		for i := range steps {
			out[i/per] += float64(value(steps[i])) / c.step.Seconds()
		}
		return out
	}
	c.arrived = sum(func(s bell.Step) int64 { return s.Arrivals })
	c.pressed = sum(func(s bell.Step) int64 { return s.Pressed })
	c.receipt = sum(func(s bell.Step) int64 { return s.Receipts })
	c.sent = sum(func(s bell.Step) int64 { return s.Sent })
	c.failed = sum(func(s bell.Step) int64 { return s.Failed })
	c.addOrigin(origin)
	c.p50, c.p99 = c.waits(t, true, 0.5), c.waits(t, true, 0.99)
	c.pageP99 = c.waits(t, false, 0.99)
	for _, mark := range []struct {
		at   time.Time
		name string
	}{{m.Opens, "opens"}, {m.Starts, "bell"}, {m.LateAfter, "late"}, {m.Ends, "ends"}} {
		c.marks = append(c.marks, chartMark{c.percent(mark.at), mark.name})
	}
	for _, k := range kills {
		from := c.percent(k.Killed)
		c.bands = append(c.bands, chartBand{from, max(0.4, c.percent(k.Ready)-from), "kill -9"})
	}
	return c
}

func (c *chartData) addOrigin(origin *lms.Server) {
	c.origin, c.lessons, c.inside = make([]float64, c.n), make([]float64, c.n), make([]float64, c.n)
	for i, s := range origin.Steps() {
		at := origin.Began().Add(time.Duration(i) * lms.StepWidth)
		n := int(at.Sub(c.first) / c.step)
		if at.Before(c.first) || n >= c.n {
			continue
		}
		for k, count := range s.Arrived {
			if lms.Kind(k) == lms.Health {
				continue
			}
			c.origin[n] += float64(count) / c.step.Seconds()
			if lms.Kind(k).Lesson() {
				c.lessons[n] += float64(count) / c.step.Seconds()
			}
		}
		c.inside[n] = max(c.inside[n], float64(s.Inside))
	}
}

// waits brings quantiles of the timeline into the chart's steps.
func (c *chartData) waits(t *bell.Timeline, checkIns bool, q float64) []float64 {
	out := make([]float64, c.n)
	from := t.Waits(checkIns, q)
	for i := range out {
		if j := int(time.Duration(i) * c.step / t.WaitWidth()); j < len(from) {
			out[i] = ms(from[j])
		}
	}
	return out
}

func (c *chartData) percent(at time.Time) float64 {
	span := c.step * time.Duration(c.n)
	return math.Round(1e4*float64(at.Sub(c.first))/float64(span)) / 100
}

func (c *chartData) seconds() float64 { return c.lasted.Seconds() }

// chart is one drawing. Shapes are SVG, stretched to whatever width there is;
// words are text beside them, which stays legible on a telephone.
type chart struct {
	ID, Title, Caption string
	Unit               string
	Series             []chartSeries
	Ticks              []chartMark // on the left, from the bottom
	Marks              []chartMark
	Bands              []chartBand
	Describe           string // the drawing in words
}

// chartSeries is one line or area.
type chartSeries struct {
	Name, Class string
	Area        bool
	Path        template.HTMLAttr // d="…"
}

// The drawing's own measures; it is stretched anyway.
const (
	chartWidth  = 1000.0
	chartHeight = 240.0
)

// values is a series before it is drawn.
type values struct {
	name, class string
	area        bool
	v           []float64
}

// drawn puts values on a linear scale from 0.
func (c *chartData) drawn(ch chart, all ...values) chart {
	top := 1.0
	for _, s := range all {
		for _, v := range s.v {
			top = max(top, v)
		}
	}
	step := niceStep(top / 4)
	top = step * math.Ceil(top/step)
	for v := 0.0; v <= top*1.001; v += step {
		ch.Ticks = append(ch.Ticks, chartMark{100 * v / top, thousands(int64(math.Round(v)))})
	}
	return c.finish(ch, all, func(v float64) (float64, bool) { return v / top, true })
}

// drawnLog puts values on a logarithmic scale, decade by decade; zeros are gaps.
func (c *chartData) drawnLog(ch chart, all ...values) chart {
	low, high := 1.0, 10.0
	for _, s := range all {
		for _, v := range s.v {
			if v > 0 {
				low = min(low, v)
				high = max(high, v)
			}
		}
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	for e := from; e <= to; e++ {
		ch.Ticks = append(ch.Ticks, chartMark{100 * (e - from) / (to - from), decade(e)})
	}
	return c.finish(ch, all, func(v float64) (float64, bool) {
		if v <= 0 {
			return 0, false
		}
		return (math.Log10(v) - from) / (to - from), true
	})
}

// decade names ten to the e milliseconds.
func decade(e float64) string {
	if e >= 3 {
		return strconv.FormatFloat(math.Pow(10, e-3), 'f', -1, 64) + " s"
	}
	return strconv.FormatFloat(math.Pow(10, e), 'f', -1, 64) + " ms"
}

func (c *chartData) finish(ch chart, all []values, scale func(float64) (float64, bool)) chart {
	ch.Marks, ch.Bands = c.marks, c.bands
	for _, s := range all {
		ch.Series = append(ch.Series, chartSeries{s.name, s.class, s.area, path(s.v, s.area, scale)})
	}
	return ch
}

// path writes the d attribute of a line, or of an area down to the bottom.
func path(v []float64, area bool, scale func(float64) (float64, bool)) template.HTMLAttr {
	var b strings.Builder
	b.WriteString(`d="`)
	pen := false
	x := func(i int) float64 { return chartWidth * (float64(i) + 0.5) / float64(len(v)) }
	for i := range v {
		y, ok := scale(v[i])
		if !ok {
			pen = false
			continue
		}
		verb := "L"
		if !pen {
			verb = "M"
			if area {
				fmt.Fprintf(&b, "M%.1f %.0f", x(i), chartHeight)
				verb = "L"
			}
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", verb, x(i), chartHeight*(1-y))
		pen = true
	}
	if area && len(v) > 0 {
		fmt.Fprintf(&b, "L%.1f %.0fZ", x(len(v)-1), chartHeight)
	}
	b.WriteString(`"`)
	return template.HTMLAttr(b.String())
}

// niceStep is 1, 2 or 5 times a power of ten, at least v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v {
			return max(1, m*power)
		}
	}
	return max(1, 10*power)
}

// peak is the highest value and the moment of it, in words.
func (c *chartData) peak(v []float64) (value int64, at string) {
	best := 0
	for i := range v {
		if v[i] > v[best] {
			best = i
		}
	}
	return int64(math.Round(v[best])), c.first.Add(time.Duration(best) * c.step).Format("15:04:05")
}

// charts draws the morning.
func (r *figures) charts() []chart {
	c := &r.chart
	arrivals, when := c.peak(c.arrived)
	presses, _ := c.peak(c.pressed)
	receipts, _ := c.peak(c.receipt)
	clients, _ := c.peak(c.sent)
	origin, _ := c.peak(c.origin)
	who := "firstbell"
	if r.Direct {
		who = "the origin"
	}
	all := []chart{
		c.drawn(chart{
			ID: "arrivals", Title: "They all come at once", Unit: "students a second",
			Caption:  fmt.Sprintf("At the busiest moment %s students a second open their lessons, and %s a second press the button.", thousands(arrivals), thousands(presses)),
			Describe: fmt.Sprintf("Arrivals climb to %d a second at %s, just before the bell, and fade.", arrivals, when),
		}, values{"open the lesson", "a", true, c.arrived}, values{"press check-in", "b", false, c.pressed}),
		c.drawn(chart{
			ID: "receipts", Title: "Receipts in hand", Unit: "receipts a second",
			Caption:  r.receiptCaption(receipts),
			Describe: fmt.Sprintf("Receipts follow the presses up to %d a second.", receipts),
		}, values{"presses", "b", false, c.pressed}, values{"first receipts", "c", true, c.receipt}),
		c.drawn(chart{
			ID: "origin", Title: "What reached the origin", Unit: "requests a second",
			Caption:  r.originCaption(clients, origin),
			Describe: fmt.Sprintf("Students send up to %d requests a second; up to %d a second reach the origin.", clients, origin),
		}, values{"sent by students", "a", true, c.sent}, values{"reached the origin", "d", false, c.origin}, values{"of those, for lessons", "e", false, c.lessons}),
		c.drawnLog(chart{
			ID: "latency", Title: "How long an answer took", Unit: "milliseconds, each line ten times the one below",
			Caption: fmt.Sprintf("Check-ins are answered by %s in %s (median), 99 of 100 within %s. Pages include the personal page, which is slow by nature.",
				who, shortMs(r.CheckinP50), shortMs(r.CheckinP99)),
			Describe: "Answer times over the morning on a logarithmic scale.",
		}, values{"pages, 99 of 100 within", "a", false, c.pageP99}, values{"check-ins, 99 of 100 within", "b", false, c.p99}, values{"check-ins, median", "c", false, c.p50}),
	}
	if r.Direct {
		all = append(all[:3:3], c.drawn(chart{
			ID: "failed", Title: "Turned away", Unit: "failed tries a second",
			Caption:  fmt.Sprintf("%s tries failed: error pages, resets, answers that never came. The origin fell %s.", thousands(r.RetriedRequests+r.FailedRequests), times(r.OriginFalls)),
			Describe: "Failed tries over the morning.",
		}, values{"failed tries", "d", true, c.failed}), all[3])
	}
	return all
}

func (r *figures) receiptCaption(peak int64) string {
	s := fmt.Sprintf("Up to %s receipts a second. A receipt means that the check-in is on disk.", thousands(peak))
	if r.Direct {
		return fmt.Sprintf("%s presses, and %s students hold a receipt at the end.", thousands(r.CheckinsPressed), thousands(r.Receipts))
	}
	if r.Kills > 0 {
		s += fmt.Sprintf(" In the shaded stretch firstbell is dead: killed with SIGKILL, back after %s, and those who were refused pressed again by themselves. The longest wait for a receipt was %s.", shortMs(r.OutageMs), shortMs(r.ReceiptWaitMax))
	}
	return s
}

func (r *figures) originCaption(clients, origin int64) string {
	if r.Direct {
		return fmt.Sprintf("Every request goes to the origin: up to %s a second, where %d can be served at a time.", thousands(clients), r.OriginPlaces)
	}
	return fmt.Sprintf("Of %s lesson requests %s reached it (%s); what it still has to answer is the personal page of each student. Never more than %d requests were inside, and it has %d places.",
		thousands(r.LessonRequests), thousands(r.LessonOriginRequests), share(r.LessonOriginRequests, r.LessonRequests), r.OriginMostAtOnce, r.OriginPlaces)
}
