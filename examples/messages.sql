select
    id,
    message,
    f.value as feels,
    round(f.probability, 2) as p,
    ai_classify(message, ['delivery', 'payment', 'product', 'account', 'praise']) as about,
    ai_summarize(message, 10) as summary,
    ai_translate(message, if(language = 'fr', 'en', 'fr')) as translation
from (
    select *, ai_analyze_sentiment(message, detail => true) as f from 'examples/messages.csv'
)
order by id
