package sink

import (
	"context"
)

// HTTPConfig is what an HTTP sink is made of.
type HTTPConfig struct {
	Config
	NDJSON bool // one record per line instead of an array
}

// OpenHTTP makes a sink that POSTs records in bulk and reads its position.
// Nothing is sent yet.
func OpenHTTP(c HTTPConfig) (*Sink, error) {
	e, err := newEndpoint(&c.Endpoint, 1, "http://10.0.0.5:8080/api/attendance/bulk")
	if err != nil {
		return nil, err
	}
	return open(&c.Config, inBulk{&bulkPost{endpoint: e, ndjson: c.NDJSON}})
}

// bulkPost is a POST with a JSON array, or with a line of JSON per record.
type bulkPost struct {
	*endpoint
	ndjson bool
}

func (b *bulkPost) post(ctx context.Context, records []record, idem string) (verdict, error) {
	contentType, content := "application/json", encodeArray(records)
	if b.ndjson {
		contentType, content = "application/x-ndjson", encodeLines(records)
	}
	a, err := b.do(ctx, "POST", b.url, content, "Content-Type", contentType, "Idempotency-Key", idem)
	if err != nil {
		return verdict{}, err
	}
	if a.status == 415 && b.coding != "" {
		return verdict{}, stop("it answered 415: it takes no %s; write coding: none", b.coding)
	}
	return judge(a, func() (verdict, error) { return judgeRecords(a.body, records) })
}

func encodeArray(records []record) []byte {
	content := make([]byte, 0, 300*len(records)+2)
	content = append(content, '[')
	for i := range records {
		if i > 0 {
			content = append(content, ',')
		}
		content = records[i].appendJSON(content)
	}
	return append(content, ']')
}

func encodeLines(records []record) []byte {
	content := make([]byte, 0, 300*len(records))
	for i := range records {
		content = append(records[i].appendJSON(content), '\n')
	}
	return content
}
