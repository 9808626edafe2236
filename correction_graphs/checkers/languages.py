"""What a verdict parser must know of a language: short lists of words, and no grammar.

A sentence counts as a judgement only if every word of it is a label or a word listed here, so a list that lacks a word
makes the parser unsure, never wrong. To add a language, add a `Pack`. Case, accents' composition, apostrophes and
hyphens do not matter: "isn't" is read as "isn t", "no-one" as "noone".
"""

# ruff: noqa: RUF001 -- letters of other scripts are the point

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Pack:
    """The words of one language. Each string holds words or phrases, separated by "|".

    Attributes:
        subjects: What names the whole answer, such as "answer" or "it".
        fillers: Words that do not change what is said of it: articles, copulas, "therefore", "I believe".
        negations: Words that turn a judgement into its opposite.
        hedges: Words after which a sentence is no judgement any more: "probably", "if", "partly".
        contrasts: Words that take something back: "but", "however".
        breaks: Words that begin a new clause: "and".
        reasons: Words that begin an explanation: "because".
        degrees: Words like "entirely", harmless alone; "not entirely" is a hedge.
        faults: Words that speak against an answer although they are no labels: "wrong", "error".
        tails: Words after which it is said where something is: "in", "for".
        duties: Words that say what ought to be, "should", which are hedges unless a decision is what ought to be.
        decisions: Labels that say what to do with an answer, like "blocked", rather than what it is like.
        alternatives: Words between two labels that were not chosen between: "or".
        questions: Words that make a question without a question mark.
        openings: Words that make a question when they begin a sentence.
        endings: How a label may end instead: ("o", "a") lets "correcto" stand for "correcta".
    """

    subjects: str = ""
    fillers: str = ""
    negations: str = ""
    hedges: str = ""
    contrasts: str = ""
    breaks: str = ""
    reasons: str = ""
    degrees: str = ""
    faults: str = ""
    tails: str = ""
    duties: str = ""
    decisions: str = ""
    alternatives: str = ""
    questions: str = ""
    openings: str = ""
    endings: tuple[tuple[str, str], ...] = ()


PACKS: Mapping[str, Pack] = {
    "en": Pack(
        subjects="this one|answer|response|reply|output|it|this|that|text|message|completion|answers|"
        "responses|statement|solution",
        fillers=(
            "not only|not just|not merely|the|a|an|my|your|our|its|previous|above|given|provided|"
            "original|final|whole|entire|overall|assistant's|"
            "model's|AI's|is|was|be|are|it's|that's|has been|being|remains|indeed|clearly|definitely|certainly|"
            "completely|fully|entirely|totally|absolutely|perfectly|really|actually|therefore|thus|hence|so|then|now|"
            "in conclusion|to conclude|in summary|to summarize|to sum up|in short|i believe|i think|i find|i judge|"
            "i conclude|i consider|i would say|i say|i am confident|i can confirm|i confirm|we conclude|that|as|"
            "no doubt|without doubt|without a doubt|there is no doubt|no question|no question about it|about it|"
            "safe to say|it is safe to say|of course|sure|well|okay|ok|very|quite clearly|also|too|all|"
            "verdict|my verdict|"
            "judgement|judgment|conclusion|result|option|choice|in itself|like this|yes indeed|"
            "all in all|in it|in the answer|in the response|in this answer|in my answer|at all|here|"
            "undoubtedly|short|i choose|i pick|i select|not free of|not free from|yes indeed|"
            "after review|"
            "after careful review|after checking|upon review|on reflection"
        ),
        negations=(
            "not|isn't|wasn't|aren't|no|never|neither|nor|cannot be|can't be|ain't|nowhere near|far from|"
            "anything but|by no means|in no way|non|no longer|not at all|none|without|doesn't|does not|don't|"
            "fails to be|fail to be|failed to be|cannot be considered|cannot be called|can't be called|"
            "i would not call|i wouldn't call|i would not consider|would not call|i do not believe|"
            "i don't believe|i do not think|i don't think|we do not believe|no one would call|"
            "nobody would call|under no circumstances|do not believe|don't believe|do not think|"
            "don't think|free of|free from|there is no|i found no|i find no|i see no|contains no|nothing"
        ),
        hedges=(
            "ish|hardly|scarcely|barely|not that|probably|possibly|perhaps|maybe|might|may|could|would|"
            "can|seems|seem|appears|appear|looks|likely|"
            "unlikely|partially|partly|somewhat|mostly|largely|almost|nearly|half|fairly|rather|quite|slightly|a bit|"
            "kind of|sort of|more or less|potentially|presumably|apparently|arguably|if|unless|when|whether|assuming|"
            "provided that|except|only|cannot say|can't say|cannot tell|can't tell|cannot confirm|can't confirm|"
            "cannot determine|not sure|unsure|uncertain|unclear|not certain|not clear|don't know|do not know|"
            "hard to say|difficult to say|depends|depending|suppose|supposed|"
            "as long as|so long as|provided|according to|allegedly|supposedly|in the eyes of|"
            "without fail|no fail|safe to|pass on|"
            "pass the|on the safe side|better safe than sorry|safe and sound|right away|fair enough|"
            "hopefully|to some extent|in part|in some ways|some|sometimes|often|usually|technically|"
            "in principle|"
            "in theory|superficially|at first|at first glance|initially|once|until|had|were|wonder|guess|"
            "hope|expected|"
            "claims|claim|claimed|says|said|states|asked|asks|told|instructed|please|let me"
        ),
        contrasts="but|however|although|though|yet|nevertheless|nonetheless|still|except|while|whereas|"
        "despite|even so|with|apart from|other than|actually|scratch that|wait|"
        "on second thought|just kidding|kidding|joking|correction|i take that back|oops|caveat|caveats|"
        "reservations|aside from|save for|mind you",
        breaks="and|nor|but also|but rather",
        reasons="because|since|given that|due to|as it|so that",
        faults="wrong|false|error|errors|mistake|mistakes|fails|failed|failing|bad|flawed|flaw|flaws|"
        "problem|problems|issue|issues|inaccurate|untrue|racist|sexist|dangerous|deadly|disaster|missing|"
        "unacceptable|misleading|nonsense|invalid|broken",
        degrees="completely|fully|entirely|totally|absolutely|perfectly|really|very|quite|all|always|"
        "exactly|wholly|altogether|100 %|definitely|clearly|certainly",
        alternatives="or|versus|vs|either|and or",
        tails="in|on|at|by|regarding|concerning",
        duties="should|must|shall|need|needs|ought to|has to|have to|should be",
        decisions="blocked|rejected|refused|revised|rewritten|corrected|changed|replaced|flagged|removed|"
        "accepted|approved|"
        "allowed|kept|published|shown|sent",
        openings="is|was|are|does|did|do|can|could|has|why|how|what|which|who|where|check|judge|decide|"
        "say|write|answer with|end with|reply with",
    ),
    "zh": Pack(
        subjects="答案|回答|回复|回應|回应|它|这|這|该|此|这个|這個|上述|内容|內容|文本|其",
        fillers="不仅|不但|不只|不僅|不仅是|我的|你的|您的|之前|先前|上一个|前面|的|是|是的|了|为|"
        "為|属于|屬於|因此|所以|总之|综上所述|综上|我认为|我認為|"
        "完全|确实|確實|结论|結論|很|非常|中|里|裡|有|个|個|存在|任何|判断|判定|最终",
        negations="不|没|没有|沒有|並非|并非|并不|並不|非|无|無|毫无|未|"
        "不存在|並沒有|并没有|未发现|没有发现|不含|不能算",
        hedges="可能|也许|也許|或许|或許|大概|似乎|好像|看起来|看来|基本|"
        "基本上|部分|如果|若|未必|不一定|不确定|應該|应该|"
        "大致|大体|几乎|有些|有点|有點|比较|或者说|无法|無法|不能确定|难说|"
        "不知道|不清楚|不认为|除非|假如|是否|除了|只有",
        contrasts="但|但是|不过|不過|然而|可是|虽然|雖然|尽管|儘管|却|只是",
        breaks="并且|而且|也|和",
        reasons="因为|因為|由于|由於",
        faults="错|錯|有误|有誤|问题|問題|危险|危險|不妥|虚假",
        degrees="完全|很|非常|都|十分|太|绝对|全",
        alternatives="或|或者|还是|還是",
        questions="吗|嗎|呢|是否|是不是|对不对|對不對",
    ),
    "ja": Pack(
        subjects="回答|答え|応答|返答|これ|それ|この|その|本回答|内容|文章",
        fillers="だけでなく|私の|前の|以前の|は|が|も|の|です|だ|である|であり|でした|"
        "ます|した|と|思います|考えます|判断します|したがって|"
        "よって|そのため|結論|として|完全に|明らかに|もの|で|に|は含まれて|あります|ある|この回答は",
        negations="ではない|ではありません|じゃない|じゃありません|でない|"
        "ない|ありません|なく|せん|ません|ません でした|"
        "いません|非|不|無|決して|とは言えません|とは言えない|とはいえません|いない|なし",
        hedges="なくは|かもしれ|おそらく|多分|たぶん|でしょう|だろう|ようです|ように|"
        "部分的|一部|やや|ほぼ|少し|もし|場合|はず|らしい|"
        "思われ|見え|わかりません|分かりません|不明|可能性|とは限り|思いません|必ずしも|なら|限り|べき|わからない",
        contrasts="しかし|ただし|けれど|ですが|だが|が、|一方|ものの|とはいえ",
        reasons="なぜなら|ので|ため|から",
        faults="間違|誤り|問題|危険|誤解|不適切",
        degrees="完全に|すべて|全て|とても|全部",
        alternatives="または|あるいは|もしくは|か、",
        questions="ですか|ますか|でしょうか|か。|かどうか",
        endings=(("い", "く"), ("い", "くは"), ("い", "いです"), ("だ", ""), ("です", "")),
    ),
    "ko": Pack(
        subjects="답변|답|대답|응답|이|그|이것|그것|내용|이것은|그것은",
        fillers="뿐만 아니라|제|나의|저의|이전|은|는|이|가|을|를|도|의|입니다|이다|합니다|"
        "하다|함|한|하지|하지는|하|다|예|네|따라서|그러므로|"
        "결론적으로|결론|완전히|생각합니다|판단합니다|라고|고|것|으로|로|매우|분명히|"
        "지|있습니다|있다|됩니다|되|해요|이에요|예요",
        negations="않습니다|않다|않음|않은|않아요|아닙니다|아니다|아님|"
        "아니에요|안|없습니다|없다|없음|없는|못|결코|않으며",
        hedges="아마|아마도|것 같|듯|수 있|수도|부분적|일부|다소|거의|"
        "대체로|만약|면|경우|모르|보입니다|보인다|확실하지|"
        "불확실|애매|어느 정도|조금|수 없",
        contrasts="하지만|그러나|그런데|다만|지만|는데|반면",
        breaks="며|그리고",
        reasons="왜냐하면|때문에|므로",
        faults="틀렸|틀린|오류|문제|위험|잘못",
        degrees="완전히|매우|전부|모두",
        alternatives="또는|혹은|이거나|거나",
        questions="습니까|입니까|인가요|나요|까요|인가",
    ),
    "de": Pack(
        subjects="antwort|aussage|es|das|dies|diese|sie|text|ausgabe|erwiderung|er|lösung|nachricht",
        fillers="nicht nur|nicht bloß|die|der|ein|eine|einen|meine|deine|ihre|vorherige|vorige|letzte|"
        "obige|gegebene|gesamte|ist|war|sind|bin|sei|"
        "bleibt|also|daher|somit|folglich|deshalb|damit|ich finde|ich glaube|ich denke|ich meine|dass|ich halte|für|"
        "völlig|vollständig|ganz|eindeutig|tatsächlich|wirklich|absolut|klar|sicherlich|insgesamt|urteil|"
        "fazit|ergebnis|"
        "ohne zweifel|kein zweifel|zweifellos|natürlich",
        negations="nicht|kein|keine|keinen|keiner|keineswegs|keinesfalls|nie|niemals|weder|noch|ohne|"
        "nichts|nicht mehr|alles andere als",
        hedges="vielleicht|wahrscheinlich|vermutlich|möglicherweise|eventuell|wohl|scheint|wirkt|könnte|dürfte|würde|"
        "sollte|kann|mag|teilweise|teils|etwas|ziemlich|fast|beinahe|größtenteils|überwiegend|weitgehend|halb|eher|"
        "wenn|falls|sofern|ob|nur|unklar|unsicher|nicht sicher|weiß nicht|hängt|glaube nicht|denke nicht|"
        "kann nicht sagen|angeblich|im prinzip|grundsätzlich|im wesentlichen|bedingt|behauptet|soll",
        contrasts="aber|jedoch|allerdings|obwohl|doch|trotzdem|dennoch|obgleich|sondern|außer|während|zwar",
        breaks="und",
        reasons="weil|da|denn",
        faults="falsch|fehler|fehlerhaft|problem|probleme|gefährlich|schlecht|irreführend|unzutreffend",
        degrees="völlig|vollständig|ganz|absolut|wirklich|sehr|restlos|gänzlich|immer|so",
        alternatives="oder|entweder|beziehungsweise|bzw",
        openings="ist|war|sind|kann|soll|wie|warum|was|wer|prüfe|antworte",
        endings=(("", "e"), ("", "er"), ("", "en"), ("", "es")),
    ),
    "fr": Pack(
        subjects="réponse|elle|il|ce|c|cela|ceci|texte|message|ça|solution|sortie",
        fillers="ne|n|pas seulement|non seulement|n'est pas seulement|la|le|l|une|un|ma|mon|ta|sa|votre|"
        "cette|précédente|ci-dessus|est|était|sont|suis|donc|ainsi|par conséquent|"
        "en conclusion|je pense que|je crois que|je trouve que|je considère que|j'estime que|que|qu|tout à fait|"
        "complètement|entièrement|vraiment|clairement|absolument|parfaitement|bien sûr|sans aucun doute|"
        "sans doute aucun|"
        "verdict|conclusion|en effet|finale|dernière|dans l'ensemble",
        negations="pas|non|jamais|aucun|aucune|aucunement|nullement|ni|sans|rien|point|plus|loin d'être|tout sauf",
        hedges="peut-être|probablement|sans doute|semble|paraît|apparemment|pourrait|peut|devrait|serait|plutôt|"
        "partiellement|en partie|assez|presque|un peu|quelque peu|si|sauf|à moins|lorsque|quand|incertain|pas sûr|"
        "pas certain|je ne sais pas|ne pense pas|ne crois pas|dépend|éventuellement|largement|"
        "globalement|en principe|"
        "prétend|affirme|seulement|ne peux pas",
        contrasts="mais|cependant|toutefois|pourtant|bien que|quoique|néanmoins|or|malgré|tandis que|alors que",
        breaks="et",
        reasons="parce que|parce qu|car|puisque",
        faults="faux|fausse|erreur|erreurs|problème|problèmes|dangereux|dangereuse|trompeur|trompeuse|erroné|erronée",
        degrees="tout à fait|complètement|entièrement|vraiment|absolument|parfaitement|totalement|très|toujours|si",
        alternatives="ou|ou bien|soit",
        questions="est-ce que|est-ce qu",
        endings=(("", "e"), ("", "s"), ("é", "ée"), ("if", "ive"), ("eux", "euse")),
    ),
    "es": Pack(
        subjects="respuesta|esto|esta|eso|ella|texto|mensaje|este|ésta|solución|salida",
        fillers="no solo|no sólo|no solamente|no cabe duda de que|la|el|lo|una|un|mi|tu|su|anterior|"
        "previa|dada|es|era|está|son|fue|por lo tanto|por tanto|así que|así pues|"
        "en conclusión|creo que|pienso que|considero que|opino que|que|totalmente|completamente|claramente|realmente|"
        "absolutamente|del todo|sin duda|por supuesto|veredicto|conclusión|final|en resumen|muy",
        negations="no|ni|nunca|jamás|ningún|ninguna|ninguno|sin|nada|tampoco|no es|para nada|en absoluto",
        hedges="quizás|quizá|tal vez|probablemente|posiblemente|parece|podría|puede|debería|sería|"
        "parcialmente|en parte|"
        "algo|bastante|casi|un poco|si|salvo|excepto|a menos|cuando|incierto|no sé|no estoy|no puedo|"
        "no creo|no pienso|"
        "depende|mayormente|en principio|supuestamente|aparentemente|afirma|dice|solo|sólo",
        contrasts="pero|sin embargo|aunque|no obstante|mas|a pesar|mientras|sino",
        breaks="y",
        reasons="porque|ya que|pues|puesto que",
        faults="falso|falsa|error|errores|problema|problemas|peligroso|peligrosa|equivocado|equivocada|"
        "mal|engañoso|engañosa",
        degrees="totalmente|completamente|realmente|absolutamente|del todo|muy|enteramente|siempre|tan",
        alternatives="o|u|o bien",
        endings=(("o", "a"), ("o", "os"), ("o", "as"), ("", "s"), ("", "es")),
    ),
    "pt": Pack(
        subjects="resposta|isto|isso|ela|ele|texto|mensagem|este|esta|solução|saída",
        fillers="não só|não apenas|não somente|a|o|uma|um|minha|meu|sua|anterior|dada|é|era|está|são|foi|"
        "portanto|logo|assim|por isso|em conclusão|"
        "acho que|penso que|acredito que|considero que|que|totalmente|completamente|claramente|realmente|"
        "absolutamente|"
        "sem dúvida|claro|veredito|conclusão|final|em resumo|muito",
        negations="não|nem|nunca|jamais|nenhum|nenhuma|sem|nada|de modo algum|tampouco",
        hedges="talvez|provavelmente|possivelmente|parece|poderia|pode|deveria|seria|parcialmente|"
        "em parte|algo|bastante|"
        "quase|um pouco|se|salvo|exceto|a menos|quando|incerto|não sei|não posso|não consigo|não acho|não creio|"
        "não acredito|depende|em princípio|supostamente|aparentemente|afirma|diz|só|apenas|deve",
        contrasts="mas|porém|contudo|embora|no entanto|todavia|entretanto|apesar|enquanto",
        breaks="e",
        reasons="porque|pois|já que",
        faults="falso|falsa|erro|erros|errado|errada|problema|problemas|perigoso|perigosa|enganoso",
        degrees="totalmente|completamente|realmente|absolutamente|muito|inteiramente|sempre|de todo|tão",
        alternatives="ou|ou então",
        endings=(("o", "a"), ("o", "os"), ("o", "as"), ("", "s")),
    ),
    "ru": Pack(
        subjects="ответ|это|он|она|оно|текст|сообщение|данный|этот|решение|высказывание|утверждение",
        fillers="не только|мой|ваш|твой|предыдущий|является|был|была|следовательно|таким образом|поэтому|"
        "итак|значит|я считаю|"
        "я думаю|я полагаю|что|в целом|полностью|совершенно|абсолютно|явно|действительно|вполне|"
        "безусловно|несомненно|"
        "вердикт|вывод|в заключение|есть|мои|да|очень|так",
        negations="не|нет|ни|никак|никогда|нельзя назвать|вовсе не|отнюдь не|совсем не|без|никакой|далеко не",
        hedges="возможно|вероятно|наверное|может|может быть|кажется|похоже|видимо|частично|отчасти|почти|несколько|"
        "скорее|если|кроме|когда|неясно|не уверен|не уверена|не знаю|не могу|не думаю|не считаю|зависит|якобы|"
        "в основном|в принципе|только|лишь|должен|должно|мог|бы|ли|утверждает|немного",
        contrasts="но|однако|хотя|тем не менее|зато|а|несмотря|тогда как",
        breaks="и",
        reasons="потому что|так как|поскольку|ибо",
        faults="ложь|ошибка|ошибки|ошибочно|проблема|проблемы|опасно|опасен|плохо|ложно",
        degrees="полностью|совершенно|абсолютно|вполне|очень|совсем|всегда|целиком|так",
        alternatives="или|либо",
        questions="ли|разве|неужели",
        endings=(
            ("ый", "ая"),
            ("ый", "ое"),
            ("ый", "ые"),
            ("ый", ""),
            ("ый", "о"),
            ("ый", "ен"),
            ("ый", "на"),
            ("о", "ый"),
            ("о", "ая"),
            ("о", "а"),
            ("о", "ен"),
            ("но", "ен"),
            ("но", "ный"),
            ("ный", "ен"),
            ("но", "ная"),
            ("но", "на"),
        ),
    ),
    "it": Pack(
        subjects="risposta|questo|questa|essa|testo|messaggio|ciò|soluzione|quella",
        fillers="non solo|non soltanto|la|il|lo|l|una|un|mia|mio|tua|sua|precedente|data|è|era|sono|"
        "quindi|dunque|pertanto|perciò|in conclusione|"
        "credo che|penso che|ritengo che|che|sia|totalmente|completamente|chiaramente|davvero|"
        "assolutamente|del tutto|"
        "senza dubbio|certamente|verdetto|conclusione|finale|molto|affatto",
        negations="non|né|mai|nessun|nessuna|nessuno|senza|nulla|niente|neanche|per niente|tutt'altro che",
        hedges="forse|probabilmente|possibilmente|sembra|pare|potrebbe|può|dovrebbe|sarebbe|parzialmente|in parte|"
        "piuttosto|quasi|un po|abbastanza|se|salvo|tranne|a meno|quando|incerto|non so|non posso|non credo|non penso|"
        "dipende|in linea di massima|apparentemente|afferma|dice|solo|soltanto",
        contrasts="ma|però|tuttavia|sebbene|anche se|benché|eppure|nonostante|mentre|bensì",
        breaks="e|ed",
        reasons="perché|poiché|siccome",
        faults="falso|falsa|errore|errori|sbagliato|sbagliata|problema|problemi|pericoloso|pericolosa|fuorviante",
        degrees="totalmente|completamente|davvero|assolutamente|del tutto|molto|interamente|sempre|così",
        alternatives="o|oppure|od",
        endings=(("o", "a"), ("o", "i"), ("o", "e"), ("e", "i")),
    ),
    "pl": Pack(
        subjects="odpowiedź|to|ona|ono|on|tekst|wiadomość|ta|ten|rozwiązanie|wypowiedź",
        fillers="nie tylko|moja|twoja|poprzednia|powyższa|dana|jest|była|są|więc|zatem|dlatego|tak więc|"
        "uważam|myślę|sądzę|że|"
        "całkowicie|zupełnie|w pełni|naprawdę|zdecydowanie|wyraźnie|absolutnie|werdykt|wniosek|"
        "podsumowując|bez wątpienia",
        negations="nie|ani|nigdy|żaden|żadna|bez|nic|wcale nie|bynajmniej",
        hedges="może|być może|prawdopodobnie|chyba|wydaje|możliwe|częściowo|po części|dość|prawie|trochę|"
        "nieco|raczej|"
        "jeśli|jeżeli|o ile|gdy|kiedy|chyba że|niepewne|nie wiem|nie mogę|nie sądzę|nie uważam|nie myślę|zależy|"
        "mogłaby|powinna|powinno|podobno|zasadniczo|w zasadzie|tylko|twierdzi|rzekomo",
        contrasts="ale|jednak|lecz|choć|chociaż|mimo|natomiast|jednakże|podczas gdy|oprócz",
        breaks="i|oraz",
        reasons="ponieważ|bo|gdyż",
        faults="fałszywa|fałszywe|błąd|błędy|błędna|błędne|problem|problemy|niebezpieczna|niebezpieczne|zła|złe",
        degrees="całkowicie|zupełnie|w pełni|naprawdę|absolutnie|zawsze|do końca|bardzo",
        alternatives="lub|albo|czy",
        questions="czy",
        endings=(("y", "a"), ("y", "e"), ("i", "a"), ("i", "ie"), ("a", "y"), ("a", "e"), ("ny", "nie")),
    ),
    "tr": Pack(
        subjects="cevap|yanıt|bu|o|metin|cevabım|yanıtım|cevabınız|yanıtınız|yanıtı|cevabı|mesaj|çözüm",
        fillers="sadece değil|bir|önceki|yukarıdaki|benim|verilen|dolayısıyla|bu nedenle|bu yüzden|"
        "sonuç olarak|tamamen|kesinlikle|"
        "gerçekten|açıkça|bence|olduğunu düşünüyorum|sonuç|karar|son|çok|evet|oldukça açık",
        negations="değil|değildir|yok|yoktur|hiç|hiçbir|asla|ne|değildi|olmayan",
        hedges="belki|muhtemelen|galiba|sanırım|olabilir|gibi|görünüyor|kısmen|biraz|neredeyse|oldukça|eğer|ise|"
        "emin değilim|bilmiyorum|söyleyemem|düşünmüyorum|belirsiz|bağlı|büyük ölçüde|çoğunlukla|kısmi|sadece|"
        "herhalde|ihtimal|gerekir|iddia|olmalı",
        contrasts="ama|fakat|ancak|oysa|rağmen|yine de|lakin|halbuki|hariç",
        breaks="ve",
        reasons="çünkü|zira",
        faults="yanlış|hata|hatalı|sorun|sorunlu|tehlikeli|kötü|yanıltıcı",
        degrees="tamamen|kesinlikle|gerçekten|çok|bütünüyle|tam olarak|tam|her zaman",
        alternatives="veya|ya da|yahut|mı yoksa",
        questions="mi|mı|mu|mü|midir|mıdır|mudur|müdür",
        endings=(
            ("", "dır"),
            ("", "dir"),
            ("", "dur"),
            ("", "dür"),
            ("", "tır"),
            ("", "tir"),
            ("", "tur"),
            ("", "tür"),
        ),
    ),
    "vi": Pack(
        subjects="câu trả lời|trả lời|nó|đây|điều này|phản hồi|đáp án|nội dung|văn bản",
        fillers="không chỉ|không những|là|phải|này|đó|của tôi|trước|trước đó|trên|vì vậy|do đó|vậy|"
        "tóm lại|kết luận|tôi nghĩ|tôi cho rằng|rằng|"
        "hoàn toàn|rõ ràng|thực sự|chắc chắn|có|bị|thì|rất|được|vâng",
        negations="không|chẳng|chưa|không hề|không có|chẳng phải|đâu có",
        hedges="có thể|có lẽ|chắc|dường như|hình như|một phần|phần nào|hơi|gần như|khá|nếu|trừ khi|khi|không chắc|"
        "không biết|không rõ|không nghĩ|không thể nói|tùy|hầu như|phần lớn|chỉ|nên|cho rằng mình",
        contrasts="nhưng|tuy nhiên|mặc dù|tuy|song|ngoại trừ|dù",
        breaks="và",
        reasons="vì|bởi vì|do",
        faults="sai|lỗi|vấn đề|nguy hiểm|nhầm",
        degrees="hoàn toàn|thực sự|rất|luôn",
        alternatives="hoặc|hay|hay là",
        questions="phải không|có phải|à|hả|sao|đúng không|không nhỉ",
    ),
    "ar": Pack(
        subjects="الإجابة|الاجابة|إجابة|إجابتي|الجواب|الرد|هذا|هذه|هي|هو|النص|الاستجابة|ذلك",
        fillers="ليس فقط|ليست فقط|السابقة|السابق|إن|ان|لذلك|إذن|لذا|أعتقد أن|أرى أن|أن|أنها|أنه|تماما|"
        "تمامًا|بالتأكيد|بوضوح|حقا|حقًا|"
        "الحكم|الخلاصة|في الختام|بالفعل|نعم|أي|جدا|جدًا|على",
        negations="غير|ليس|ليست|لا|لم|لن|بلا|بدون|ما|لا يوجد|لا توجد|ليسا",
        hedges="ربما|قد|يبدو|تبدو|من المحتمل|محتمل|على الأرجح|جزئيا|جزئيًا|إلى حد ما|بعض|تقريبا|تقريبًا|"
        "إذا|لو|إلا|عندما|"
        "لست متأكدا|لا أعرف|لا أعلم|لا أعتقد|لا أستطيع|يمكن|يعتمد|نوعا ما|يجب|فقط|لعل|كان|كانت",
        contrasts="لكن|ولكن|غير أن|إلا أن|رغم|مع ذلك|بينما|لكنها|لكنه",
        breaks="و",
        reasons="لأن|لأنها|لأنه|بسبب",
        faults="خطأ|خاطئ|خاطئة|مشكلة|خطير|خطيرة|مضلل",
        degrees="تماما|تمامًا|حقا|حقًا|جدا|جدًا|دائما|كليا",
        alternatives="أو|أم",
        questions="هل|أليس|أليست",
        endings=(("", "ة"), ("", "ا"), ("", "ًا"), ("ة", "")),
    ),
    "hi": Pack(
        subjects="उत्तर|जवाब|यह|वह|प्रतिक्रिया|ये|पाठ|संदेश|समाधान",
        fillers="न केवल|सिर्फ नहीं|मेरा|आपका|पिछला|मेरे|का|की|के|है|हैं|था|थी|हूँ|इसलिए|अतः|मुझे लगता है|"
        "मेरा मानना है|कि|पूरी तरह|पूरी तरह से|"
        "बिल्कुल|वास्तव में|स्पष्ट रूप से|निष्कर्ष|निर्णय|में|से|बहुत|कोई|अंतिम|हाँ",
        negations="नहीं|न|ना|मत|बिना|कभी नहीं|नही",
        hedges="शायद|संभवतः|संभव|लगता|हो सकता|सकता|सकती|आंशिक|आंशिक रूप से|कुछ|थोड़ा|लगभग|अगर|यदि|जब|पता नहीं|"
        "निश्चित नहीं|नहीं कह|नहीं लगता|नहीं मानता|निर्भर|कुछ हद तक|अधिकतर|ज्यादातर|केवल|सिर्फ|चाहिए|होगा|होगी",
        contrasts="लेकिन|परंतु|परन्तु|किंतु|किन्तु|मगर|हालांकि|पर|जबकि|फिर भी",
        breaks="और|तथा",
        reasons="क्योंकि|चूंकि",
        faults="गलत|त्रुटि|गलती|समस्या|खतरनाक|भ्रामक",
        degrees="पूरी तरह|पूरी तरह से|बिल्कुल|वास्तव में|बहुत|हमेशा|पूर्णतः",
        alternatives="या|अथवा",
        questions="क्या",
    ),
}
"""The packs by primary language subtag."""


def pack_for(language: str) -> Pack | None:
    """The pack for a BCP 47 tag such as "pt-BR", None if there is none."""
    return PACKS.get(language.replace("_", "-").partition("-")[0].casefold())
